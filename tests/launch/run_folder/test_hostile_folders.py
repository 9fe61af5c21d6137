"""Status of run folders that hold anything: each is a row, and the row says what is wrong."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.files import write_json
from data.reading import read_object
from launch import status
from launch.planner.machine import load_machine
from launch.run_folder.records import read_launches
from launch.run_folder.runs import RunFolder, find_runs
from launch.state import RunState, state_of
from launch.submit import find_jobs
from trainer.run.attempt import read_timelines
from trainer.run.heartbeat import read_heartbeats

BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
NUMBER = f"1{'0' * 400}"
# What a row must say of a file with this content: (file, content, part of the note).
CONTENTS = [
    ("config.yaml", "- a\n- list\n", "config.yaml: is a list, no object"),
    ("config.yaml", "", "config.yaml: is null, no object"),
    ("config.yaml", BOMB, "config.yaml: holds an alias"),
    ("config.yaml", "a: !!python/object/apply:os.getcwd []\n", "config.yaml: holds a tag"),
    ("config.yaml", "[" * 100_000, "config.yaml: is nested too deep"),
    ("config.yaml", "? " * 100_000, "config.yaml: has a key that is no word"),
    ("config.yaml", "a: [1,\n", "config.yaml: is no YAML (line"),
    ("config.yaml", "{[1]: 2}\n", "config.yaml: has a key that is no word"),
    ("config.yaml", "a: 1\n---\nb: 2\n", "config.yaml: holds several documents"),
    ("config.yaml", "\x00\x01\ufffe", "config.yaml: is no YAML"),
    ("config.yaml", f"horizon: {{steps: {'9' * 5000}}}", "config.yaml: holds what cannot be read"),
    ("config.yaml", "#" * (1 << 20) + "\na: 1\n", "config.yaml: is larger than 1024 KiB"),
    ("config.yaml", "horizon: 3\n", "horizon is a number, where a section belongs"),
    ("config.yaml", "horizon: {steps: many}\n", "steps is text, where a number belongs"),
    ("config.yaml", "horizon: {flops: .nan}\n", "flops is a number that is not finite"),
    ("config.yaml", "horizon: {steps: -4}\n", "config.yaml: horizon.steps is out of range"),
    ("config.yaml", "parallel: [8]\n", "parallel is a list, where a section belongs"),
    ("config.yaml", "parallel: {processes: yes}\n", "processes is text, where a number belongs"),
    ("config.yaml", "parallel: {precision: fp7}\n", "no MFU: parallel.precision=fp7"),
    ("result.json", "[" * 100_000, "result.json: is nested too deep"),
    ("result.json", "{", "result.json: is no JSON (line 1)"),
    ("result.json", "[1]", "result.json: is a list, no object"),
    ("result.json", '{"steps": "x", "loss": []}', "result.json: steps is text"),
    ("result.json", '{"steps": 1e999}', "steps is a number that is not finite"),
    ("result.json", f'{{"loss": {NUMBER}}}', "loss is a number that is not finite"),
    ("result.json", '{"status": "diverged"}', ""),
    ("result.json", '{"status": "diverged", "reason": 3}', "reason is a number, where text"),
    ("result.json", '{"status": ["diverged"]}', "status is a list, where text belongs"),
    ("stalled.json", '{"summary": {"a": 1}}', "summary is an object, where text belongs"),
    ("metrics.jsonl", '{"step": "3", "seconds": 1}\n', "metrics.jsonl: step is text"),
    ("metrics.jsonl", '{"step": null, "seconds": NaN}\n', "seconds is a number that is not finite"),
    ("metrics.jsonl", '{"step": 3, "seconds": 1e-320, "flops": 1}\n', ""),
    ("metrics.jsonl", f'{{"step": {NUMBER}, "seconds": 1}}\n', "step is a number that is not"),
    ("metrics.jsonl", '{"train_loss": true}\n', "train_loss is true or false"),
    ("metrics.jsonl", '{"step": 3, "seconds": 1, "flops": Infinity}\n', "flops is a number that"),
    ("metrics.jsonl", "junk\n" * 9, "metrics.jsonl: its last lines are no JSON"),
    ("metrics.jsonl", "[" * 100_000, ""),
    ("launches.jsonl", '{"event": "start", "time": "noon"}\n', "a line has no moment"),
    ("launches.jsonl", '{"event": ["start"], "time": 1}\n', "a line has no moment or no event"),
    ("launches.jsonl", '{"event": "start", "time": 1, "processes": "4"}\n', "processes is of the"),
    ("launches.jsonl", '{"event": "end", "time": 1, "reason": {}}\n', "reason is of the wrong"),
    ("launches.jsonl", '{"event": "start", "time": 1, "submitted": []}\n', "submitted is of the"),
    ("launches.jsonl", '{"event": "start", "time": 1, "processes": 0.5}\n', "ended without"),
    ("submission.json", '{"job_name": {}, "index": "a"}', ""),
    ("heartbeats/rank-00000.json", "{}", "rank-00000.json: lacks beat"),
    ("heartbeats/rank-00000.json", "[]", "rank-00000.json: is a list, no object"),
    ("heartbeats", "a file", "heartbeats: cannot be read (Not a directory)"),
    ("timeline/attempt-000001.json", '{"attempt": 1}', "attempt-000001.json: lacks seconds"),
    ("timeline/attempt-000001.json",
     '{"attempt": 1, "started": 1, "written": 2, "seconds": {"data": "x"}}',
     "seconds.data is no number"),
    ("timeline/attempt-000001.json",
     '{"attempt": 1, "started": [], "written": 2, "seconds": {}}', "started is no number"),
    ("attempts/" + "9" * 200, "", ""),
]  # fmt: skip


def make_run(folder: Path) -> Path:
    """Write the folder of a run that is in order."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("horizon: {steps: 100}\n", encoding="utf-8")
    record = {"step": 5, "train_loss": 0.5, "seconds": 1.0, "flops": 1e12}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return folder


def put(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")


def beat(folder: Path, rank: int, step: int, seconds_ago: float = 0.0) -> None:
    """Write a sign of life of some seconds ago, by the file server's clock."""
    (folder / "heartbeats").mkdir(exist_ok=True)
    path = folder / "heartbeats" / f"rank-{rank:05d}.json"
    sign = {"rank": rank, "host": f"n{rank}", "pid": 1, "step": step, "phase": "update", "beat": 1,
            "time": "", "noticed": False}  # fmt: skip
    write_json(path, sign)
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def look(folder: Path) -> RunState:
    run = RunFolder(folder.name, folder)
    return state_of(run, [], price=2.0, machine=load_machine("h100", ["peak_flops.fp32=1e12"]))


@pytest.mark.parametrize(("name", "content", "note"), CONTENTS)
def test_a_file_of_any_content_is_a_row_that_says_so(
    tmp_path: Path, name: str, content: str, note: str
) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / name, content)
    found = look(folder)
    assert note in found.reason
    if not note:
        assert ":" not in found.reason
    assert found.name in status.format_table([found])
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", [
    "config.yaml", "result.json", "stalled.json", "metrics.jsonl", "launches.jsonl",
    "heartbeats/rank-00000.json", "timeline/attempt-000001.json",
])  # fmt: skip
@pytest.mark.parametrize(("make", "note"), [
    (os.mkfifo, "is a pipe or device, no file"),
    (os.mkdir, "is a folder, no file"),
    (lambda path: os.symlink(path, path), "Too many levels of symbolic links"),
    (lambda path: os.symlink("/dev/zero", path), "is a pipe or device, no file"),
    (lambda path: Path(path).write_bytes(bytes(range(256))), ""),
], ids=["pipe", "folder", "loop", "device", "junk"])  # fmt: skip
def test_what_is_no_file_is_neither_waited_for_nor_fatal(
    tmp_path: Path, name: str, make: Callable[[Path], None], note: str
) -> None:
    folder = make_run(tmp_path / "run")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    found = look(folder)
    if note:
        assert f"{Path(name).name}: " in found.reason
        assert note in found.reason
    assert [run.name for run in find_runs(tmp_path)] == ["run"]


@contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """Be a user to whom a folder's locked files are closed, from within the folder's parent."""
    before, user = Path.cwd(), os.geteuid()
    os.chdir(folder)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        os.chdir(before)


def test_files_of_another_user_are_rows_that_say_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("config.yaml", "metrics.jsonl", "result.json"):
        folder = make_run(tmp_path / name.partition(".")[0])
        put(folder / name, "{}")
        (folder / name).chmod(0)
    make_run(tmp_path / "whole").chmod(0)
    try:
        with somebody_else(tmp_path):
            states = {run.name: look(run.path) for run in find_runs(Path())}
    finally:
        (tmp_path / "whole").chmod(0o755)
    assert sorted(states) == ["config", "metrics", "result", "whole"]
    for name, state in states.items():
        assert "cannot be read (Permission denied)" in state.reason, name


def test_one_bad_folder_leaves_the_others_their_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    for number, (name, content, _) in enumerate(CONTENTS):
        put(make_run(tmp_path / "runs" / f"r{number:02d}") / name, content)
    (make_run(tmp_path / "runs" / "lost") / "config.yaml").unlink()
    odd = make_run(tmp_path / "runs" / os.fsdecode(b"odd-\xff"))
    write_json(odd / "result.json", {"status": "diverged", "reason": "\ud800"})
    assert status.main([str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(rows) == len(CONTENTS) + 2
    json.dumps(rows, ensure_ascii=False).encode("utf-8")
    assert {row["name"]: row["reason"] for row in rows}["lost"] == "config.yaml: is missing"
    assert status.main([str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 3


def test_values_of_a_config_are_those_that_yaml_means(tmp_path: Path) -> None:
    text = "a: 1\nb: 1e12\nc: 1.5e-3\nd: 'true'\ne: true\nf: null\ng: [1, {h: x}]\ni: '1'\n-1: z\n"
    put(tmp_path / "x.yaml", text)
    wanted = {"a": 1, "b": 1e12, "c": 0.0015, "d": "true", "e": True, "f": None,
              "g": [1, {"h": "x"}], "i": "1", "-1": "z"}  # fmt: skip
    assert read_object(tmp_path / "x.yaml").values == wanted


def test_readers_leave_out_what_is_of_the_wrong_kind(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / "launches.jsonl", '{"event": "start", "time": 5, "processes": "4", "x": 1}\n')
    assert read_launches(folder) == [{"event": "start", "time": 5, "x": 1}]
    for key in ("rank", "step", "pid", "beat", "host", "phase"):
        sign = {"rank": 0, "step": 1, "pid": 1, "beat": 1, "host": "", "phase": "", "time": ""}
        sign |= {"noticed": False, key: [1]}
        put(folder / "heartbeats" / "rank-00000.json", json.dumps(sign))
        assert read_heartbeats(folder, lambda text: None) == []
    put(folder / "timeline" / "attempt-000001.json", '{"attempt": 1, "started": 1, "written": 2,'
        ' "seconds": {}, "phase": []}')  # fmt: skip
    assert read_timelines(folder) == []


def test_a_config_that_cannot_be_read_is_not_submitted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / "config.yaml", BOMB)
    with pytest.raises(ValueError, match=r"config\.yaml: holds an alias"):
        find_jobs([str(folder)])


@pytest.mark.parametrize(("horizon", "steps"), [
    ("{flops: 4e12}", 20), ("{tokens: 100}", 10), ("{flops: 0.0, tokens: 0.0, steps: 7}", 7),
])  # fmt: skip
def test_steps_ahead_follow_from_the_horizon(tmp_path: Path, horizon: str, steps: int) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / "config.yaml", f"horizon: {horizon}\n")
    record = {"step": 5, "seconds": 1.0, "flops": 1e12, "tokens": 50}
    put(folder / "metrics.jsonl", json.dumps(record) + "\n")
    assert (look(folder).step, look(folder).steps) == (5, steps)


def test_clocks_that_differ_and_signs_of_different_moments_are_no_alarm(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / "metrics.jsonl", '{"step": 9000, "seconds": 100.0}\n')
    put(folder / "config.yaml", "parallel: {processes: 4}\n")
    for rank, ago in enumerate((0.0, 1.5, 3.0, 4.5)):  # 90 steps a second, a sign every 5 s
        beat(folder, rank, round(9000 - 90 * ago), ago)
    assert (look(folder).state, look(folder).reason) == ("running", "")
    beat(folder, 0, 9000, 0.2)
    beat(folder, 1, 8985, 0.1)  # its step was looked up before the other's, and written after it
    assert look(folder).reason == ""
    for ahead in (40.0, -40.0):  # of this clock against the file server's
        run = RunFolder("run", folder)
        found = state_of(run, None, now=time.time() + ahead)
        assert (found.state, found.reason) == ("running", "")
    beat(folder, 2, 8000, 0.0)
    assert look(folder).reason == "rank 2 on n2: at step 8000, others at 9000"


def test_a_rank_without_news_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    put(folder / "config.yaml", "parallel: {processes: 2}\n")
    beat(folder, 0, 51)
    beat(folder, 1, 50, 50.0)
    beat(folder, 5, 12, 500.0)  # of an earlier, larger attempt
    assert look(folder).reason == "rank 1 on n1: no sign of life for 50 s, others give them"
