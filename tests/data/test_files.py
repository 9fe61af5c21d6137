"""A file is whole or not there: values, failures, races, and that nobody writes by other means."""

import json
import math
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data.files import publish, replacing, write_bytes, write_csv, write_json, write_text

ROOT = Path(__file__).parents[2]
ROOMS = ["models", "data", "trainer", "launch", "sweeps"]


def test_numbers_that_are_not_finite_become_null_and_text_stays(tmp_path: Path) -> None:
    value = {"a": [math.nan, -math.inf], "b": (math.inf, 0.1), "c": "reason: NaN in step"}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, None],
        "b": [None, 0.1],
        "c": "reason: NaN in step",
    }
    assert text.endswith("}\n")


def test_what_json_does_not_know_is_refused_or_turned(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(TypeError):
        write_json(path, {"a": Path("b")})
    assert not list(tmp_path.iterdir())
    write_json(path, {"a": Path("b")}, default=str)
    assert json.loads(path.read_text()) == {"a": "b"}


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old ü\n")
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        (temporary.write_text("half"), (tmp_path / "none").read_text())
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old ü\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    script = (
        "import os, sys; from pathlib import Path; from data.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


@pytest.mark.heavy
def test_threads_that_write_one_path_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "x.json"

    def write(number: int) -> None:
        for _ in range(20):
            write_json(path, {"number": [number] * 2000}, synced=False)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert len(set(json.loads(path.read_text())["number"])) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_synced_write_syncs_the_content_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "x.bin", []

    def note(synced: Path) -> None:
        seen.append((synced == tmp_path, path.exists()))

    monkeypatch.setattr("data.files.sync", note)
    write_bytes(path, b"1")
    assert seen == [(False, False), (True, True)]
    (tmp_path / "y").write_bytes(b"2")
    publish(tmp_path / "y", path, synced=False)
    assert path.read_bytes() == b"2"
    assert len(seen) == 2


def test_missing_values_are_empty_fields(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", ["a", "b"], [{"a": None, "b": math.nan, "c": 1}, {"b": "p,q"}])
    assert (tmp_path / "x.csv").read_text() == 'a,b\n,\n,"p,q"\n'


def test_nobody_else_replaces_files_by_hand() -> None:
    by_hand = re.compile(r"os\.(replace|rename)\(|\.tmp\"\)|temporary\.(replace|rename)\(")
    found = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if by_hand.search(path.read_text(encoding="utf-8"))
    ]
    # What grows under another name, and a snapshot of the code, which is a folder.
    grown = ["data/dataset/part.py", "data/dataset/shards.py", "data/engine/drafts.py"]
    assert found == [*grown, "data/files.py", "launch/slurm/snapshot.py"]
