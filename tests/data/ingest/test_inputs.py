"""One file that cannot be read, in a folder, a list or a tar, is a reject with its name."""

import ctypes
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from rich.console import Console

from data.config import IngestConfig
from data.dataset.shards import read_index
from data.engine.parts import build_dataset
from data.engine.source import Notes
from data.ingest.ingest import find_sources, ingest
from data.ingest.inputs import Entry, find_entries
from data.ingest.media_file import MediaFile
from data.ingest.sidecar import read_sidecars
from data.media.reject import printable
from tests.data.conftest import add, paint, png

LATIN = os.fsdecode(b"caf\xe9.png")
SHOWN = "caf\\xe9.png"
NOT_UTF8 = "its name is not UTF-8"
NO_FILE = "is a pipe, socket or device"


def picture(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(png(paint(1, 40, 40, seed=len(name))))


def run(tmp_path, source):
    """Ingest in this process; return the sources that were built, and reasons by file."""
    config = IngestConfig(input=str(source), output=str(tmp_path / "out"), duplicate_bits=-1)
    manifest = ingest(config, Console(file=io.StringIO()))
    return told(manifest, tmp_path / "out")


def told(manifest, root):
    text = (root / "manifest.json").read_bytes().decode("utf-8")
    assert json.loads(text)["rejects"] == manifest["rejects"]
    built = sorted(info.source for info in read_index(root, "train"))
    return built, {entry["file"]: entry["reason"] for entry in manifest["rejects"]}


def test_names_that_are_no_utf8_and_pipes_in_a_folder_are_rejects(tmp_path):
    folder = tmp_path / "in"
    picture(folder, "good.png", LATIN)
    picture(folder / os.fsdecode(b"\xff"), "inside.png")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("words")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "good.txt")
    os.mkfifo(folder / "pipe.tar")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder").symlink_to(folder)
    built, reasons = run(tmp_path, folder)
    assert built == ["good.png"]
    assert reasons == {
        SHOWN: NOT_UTF8,
        "caf\\xe9.txt": NOT_UTF8,
        "\\xff/inside.png": NOT_UTF8,
        "pipe.png": NO_FILE,
        "good.txt": NO_FILE,
        "pipe.tar": NO_FILE,
        "loop.png": "is a link",
        "folder": "is a link",
    }


@pytest.mark.heavy
def test_lines_of_a_list_that_name_no_readable_file_are_rejects(tmp_path):
    folder = tmp_path / "in"
    picture(folder, "good.png", LATIN)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "good.json")
    (folder / "loop.png").symlink_to("loop.png")
    long = "x" * 300 + ".png"
    bad = [b"lost.png", b"caf\xe9.png", b"pipe.png", b"loop.png", b".", b"/", b"..", b"a\0b.png"]
    lines = [b"good.png", *bad, long.encode(), b"good.png/under.png", b"/dev/null"]
    (folder / "list.txt").write_bytes(b"\n".join(lines))
    built, reasons = run(tmp_path, folder / "list.txt")
    assert built == ["good.png"]
    assert reasons == {
        "lost.png": "does not exist",
        SHOWN: NOT_UTF8,
        "pipe.png": NO_FILE,
        "good.json": NO_FILE,
        "loop.png": "cannot be read: Too many levels of symbolic links",
        ".": "is a folder",
        "/": "is a folder",
        "..": "is a folder",
        "a\0b.png": "does not exist",
        long: "cannot be read: File name too long",
        "good.png/under.png": "does not exist",
        "/dev/null": NO_FILE,
    }


def test_members_of_a_tar_with_unusable_names_are_rejects(tmp_path):
    content = png(paint(1, 40, 40))
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in ("good.png", LATIN, os.fsdecode(b"../caf\xe9.png")):
            add(tar, name, content)
    built, reasons = run(tmp_path, tmp_path / "some.tar")
    assert built == ["some.tar/good.png"]
    assert reasons == {f"some.tar/{SHOWN}": NOT_UTF8, f"some.tar/../{SHOWN}": NOT_UTF8}


@pytest.mark.heavy
def test_a_tar_whose_numbers_no_machine_can_hold_is_a_reject(tmp_path):
    head = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\x80" + b"\xff" * 11  # a size of 88 bits
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    picture(tmp_path / "in", "good.png")
    (tmp_path / "in" / "vast.tar").write_bytes(bytes(head) + b"\0" * 1024)
    built, reasons = run(tmp_path, tmp_path / "in")
    assert built == ["good.png"]
    assert {file.split("/")[0] for file in reasons} == {"vast.tar"}


@pytest.mark.heavy
def test_files_that_vanish_after_they_were_listed_are_rejects(tmp_path):
    folder = tmp_path / "in"
    picture(folder, "good.png", "gone.png")
    config = IngestConfig(input=str(folder), output=str(tmp_path / "out"), duplicate_bits=-1)
    notes = Notes()
    sources = find_sources(config, notes)
    (folder / "gone.png").unlink()
    manifest = build_dataset(tmp_path / "out", sources, config, notes)
    built, reasons = told(manifest, tmp_path / "out")
    assert built == ["good.png"]
    assert reasons == {"gone.png": "cannot be read: No such file or directory"}


def obey_permissions():
    """Make this process obey permission bits, also as root: drop CAP_DAC_OVERRIDE and _READ_SEARCH.

    Capabilities leave root's bounding set here and its other sets at the exec that follows.
    """
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.heavy
def test_what_the_owner_may_not_read_is_a_reject(tmp_path):
    """In a process of its own, since root reads everything."""
    folder = tmp_path / "in"
    picture(folder, "good.png", "shut.png")
    picture(folder / "closed", "inside.png")
    (folder / "good.txt").write_text("words")
    with tarfile.open(folder / "shut.tar", "w"):
        pass
    shut = ["shut.png", "good.txt", "shut.tar", "closed"]
    for name in shut:
        (folder / name).chmod(0)
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "data.ingest", f"input={folder}", f"output={tmp_path / 'out'}"]
    done = subprocess.run(
        command, cwd=root, preexec_fn=obey_permissions, capture_output=True, text=True, timeout=60
    )
    for name in shut:
        (folder / name).chmod(0o755)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    built, reasons = told(manifest, tmp_path / "out")
    assert built == ["good.png"]
    assert sorted(reasons) == sorted(shut)
    assert all("ermission denied" in reason for reason in reasons.values())


def test_an_input_that_is_a_pipe_or_not_there_is_an_error_with_its_key(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    notes = Notes()
    assert find_entries(tmp_path / "list.txt", notes) == []
    assert [(entry["file"], entry["reason"]) for entry in notes.rejects] == [("list.txt", NO_FILE)]
    with pytest.raises(ValueError, match=r"input=.*: cannot be read \(File name too long\)"):
        find_entries(tmp_path / ("x" * 300), notes)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("plain é.png", "plain é.png"), (LATIN, SHOWN), ("half \ud800", "half \\ud800")],
)
def test_any_name_can_be_printed(name, shown):
    assert printable(name) == shown
    shown.encode("utf-8")


@pytest.mark.heavy
def test_a_disk_that_fails_in_the_middle_costs_the_file_alone(tmp_path):
    """Nothing is mapped at the start of a process's memory: reading there gives EIO."""
    picture(tmp_path, "good.png")
    failing = Path("/proc/self/mem")
    good = tmp_path / "good.png"
    sources = [
        MediaFile("film.mp4", "train", failing, nbytes=1000),
        MediaFile("picture.png", "train", failing, nbytes=1000),
        MediaFile("good.png", "train", good, nbytes=good.stat().st_size),
    ]
    config = IngestConfig(output=str(tmp_path / "out"), duplicate_bits=-1)
    notes = Notes()
    entries = [Entry("good.png", good, 0, 9, 0), Entry("good.txt", failing, 0, 9, 0)]
    media, _ = read_sidecars(entries, 100, notes.reject)
    assert [entry.name for entry in media] == ["good.png"]
    manifest = build_dataset(tmp_path / "out", sources, config, notes)
    built, reasons = told(manifest, tmp_path / "out")
    assert built == ["good.png"]
    assert sorted(reasons) == ["film.mp4", "good.txt", "picture.png"]
    assert all("nput/output error" in reason for reason in reasons.values())
