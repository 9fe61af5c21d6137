"""What all commands share: help, errors, a reader that leaves, Ctrl-C; seen from a process."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from data.command_line import parse, read_json
from data.config import IngestConfig
from data.engine.children import run_in_children
from data.shell import Command, OptionParser, Refused, explain_system

ROOT = Path(__file__).parents[2]
DOC = "Do a thing.\n\nusage: thing KEY=VALUE"


def raising(error: BaseException, **options: object) -> Command:
    """Return a command that ends with an error."""

    def work(words: list[str]) -> int:
        raise error

    return Command(work, DOC, **options)  # type: ignore[arg-type]


def program(body: str, **options: object) -> list[str]:
    """Return a process whose command runs ``body``."""
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    code = (
        "import os, sys, time\nfrom data.shell import command\n"
        f"@command('Teach.', needs_words=False{given})\n"
        "def main(words):\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "main.run()"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["key=1", "--help"]])
def test_help_prints_the_docstring_and_does_nothing(words, capsys) -> None:
    assert raising(AssertionError("worked"))(words) == 0
    assert capsys.readouterr().out.strip() == DOC


def test_help_prints_the_keys_of_the_schema_and_what_else_there_is(capsys) -> None:
    assert Command(len, DOC, keys=IngestConfig, also=lambda: "groups: a|b")(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "token_cap" in shown
    assert shown.endswith("groups: a|b\n")


def test_without_words_a_command_that_needs_some_teaches_on_stderr(capsys) -> None:
    assert raising(AssertionError("worked"))([]) == 2
    assert capsys.readouterr().err.strip() == DOC
    assert Command(lambda words: 7, DOC, needs_words=False)([]) == 7


@pytest.mark.parametrize("error", [ValueError("a=1: rule. Remedy."), Refused("a=1: rule. Remedy.")])
def test_what_a_user_can_mend_is_one_line_and_status_2(error, capsys) -> None:
    assert raising(error)(["a=1"]) == 2
    assert capsys.readouterr() == ("", "error: a=1: rule. Remedy.\n")


def test_a_bug_keeps_its_traceback() -> None:
    for bug in (KeyError("x"), RuntimeError("x"), OSError(errno.ECONNREFUSED, "refused")):
        with pytest.raises(type(bug)):
            raising(bug)(["a=1"])


def test_a_rank_s_errors_of_the_system_reach_its_starter() -> None:
    done = subprocess.run(
        program("raise OSError(28, 'full', 'x')"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"RANK": "0"},
    )
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: [Errno 28] full: 'x'\n")


def test_ctrl_c_says_what_is_kept(capsys) -> None:
    assert raising(KeyboardInterrupt(), kept="all is kept; go on")(["a=1"]) == 130
    assert capsys.readouterr() == ("", "interrupted: all is kept; go on\n")


def test_what_the_system_refuses_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")

    def told(work) -> str:
        with pytest.raises(OSError) as found:
            work()
        return explain_system(found.value) or ""

    below = tmp_path / "file/below"
    assert told(lambda: below.mkdir(parents=True)).startswith(f"{below}: lies below a file")
    assert told((tmp_path / "file").mkdir) == (
        f"{tmp_path}/file: is a file. Choose another path, or move it."
    )
    assert "is a folder, but must be a file" in told(tmp_path.read_bytes)
    assert "does not exist" in told((tmp_path / "none").read_bytes)
    assert "does not exist, or cannot be made there" in told(Path("/proc/none").mkdir)
    assert "name that is too long" in told((tmp_path / ("x" * 300)).read_bytes)
    assert "leads to itself" in told((tmp_path / "loop").read_bytes)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert explain_system(full) == (
        "the disk is full. Free some space, then run the same command again."
    )
    assert explain_system(OSError(errno.ECONNRESET, "reset", "x")) is None


def test_broken_json_is_named(tmp_path: Path, capsys) -> None:
    path = tmp_path / "clips.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=rf"clips={path}: is no JSON \(.*line 1"):
        read_json(path, "clips")
    with pytest.raises(ValueError, match=r"clips=.*none: cannot be read \(No such file"):
        read_json(tmp_path / "none", "clips")

    def work(words: list[str]) -> int:
        return int(json.loads("{broken"))

    assert Command(work, DOC)(["a"]) == 2
    assert "'{broken'...: is no JSON" in capsys.readouterr().err
    assert raising(UnicodeDecodeError("utf-8", b"\xff\xfeab", 0, 1, "bad"))(["a"]) == 2
    assert "is no text in UTF-8" in capsys.readouterr().err


def test_options_that_do_not_exist_are_a_user_s_mistake() -> None:
    parser = OptionParser()
    parser.add_argument("root")
    with pytest.raises(ValueError, match=r"unrecognized arguments: --nope\. See --help\."):
        parser.parse_args(["x", "--nope"])


@pytest.mark.parametrize(
    "text", ["a b", "ü", "a: b", "007", "", "[x]", "~", "a #b", "null", "'", "x=y"]
)
def test_a_text_stays_as_it_was_typed(text: str) -> None:
    assert parse(IngestConfig, [f"input={text}"]).input == text
    assert parse(IngestConfig, [f"input='{text}'", "token_cap=512"]).input == text


def test_a_reader_that_leaves_lets_a_command_finish_its_files(tmp_path: Path) -> None:
    done = tmp_path / "done"
    body = (
        "for i in range(20000): print(i, 'x' * 50)\n"
        "sys.stdout.flush()\n"
        "print('and here', file=sys.stderr)\n"
        f"open({str(done)!r}, 'w').write('all')\n"
        "return 3"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(program(body), cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"and here\n"
    assert (process.returncode, done.read_text()) == (3, "all")


def test_a_reader_that_leaves_ends_a_command_that_only_prints() -> None:
    command = program("while True: print('x')", prints_only=True)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            program("print('x')\nreturn 0"), cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: standard output: the disk is full.")
    assert done.stderr.count(b"\n") == 1


def test_characters_that_the_terminal_lacks_are_spelt_out() -> None:
    done = subprocess.run(
        program(r"print('\u00fc', '\udcff')" "\nreturn 0"),
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout) == (0, b"\\xfc \\udcff\n")


def interrupted(command: list[str], after: bytes) -> tuple[int, bytes]:
    """Interrupt a process as a terminal does once it has printed; return status and stderr."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == after
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(30), process.stderr.read()


@pytest.mark.heavy
def test_ctrl_c_in_a_process_ends_children_and_prints_one_line() -> None:
    body = (
        "from data.engine.children import run_in_children\n"
        "jobs = run_in_children(time.sleep, [60.0, 60.0], 2, 100.0,\n"
        "    on_wait=lambda: print('waits', flush=True))\n"
        "list(jobs)"
    )
    # Interrupted while the children import: nothing of them is seen.
    status, said = interrupted(program(body, kept="it is kept"), b"waits\n")
    assert (status, said) == (130, b"interrupted: it is kept\n")


def fill_a_disk(job: int) -> None:
    """Write to a disk that is full, in a child."""
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_a_full_disk_in_a_child_is_one_line(capsys) -> None:
    def work(words: list[str]) -> int:
        return len(list(run_in_children(fill_a_disk, [1], 1, 100.0)))

    assert Command(work, DOC)(["a=1"]) == 2
    said = "error: the disk is full. Free some space, then run the same command again.\n"
    assert capsys.readouterr() == ("", said)
    big = OSError(errno.EFBIG, "File too large", "x")
    assert explain_system(big) == (
        "x: no file may become so large (ulimit -f). Raise that, then run the same command."
    )


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_jobs_started_ends_with_the_command_however_that_ends(number: int) -> None:
    """As the engines of simulated worlds."""
    body = (
        "import subprocess\n"
        "from data.engine.children import run_in_children\n"
        "words = [['sleep', '61'], ['sleep', '61']]\n"
        "tell = lambda: print('waits', flush=True)\n"
        "list(run_in_children(subprocess.check_call, words, 2, 100.0, on_wait=tell))"
    )
    with subprocess.Popen(program(body), cwd=ROOT, stdout=subprocess.PIPE) as process:
        parent, started = psutil.Process(process.pid), []
        deadline = time.monotonic() + 60
        while len(started) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
            with suppress(psutil.NoSuchProcess):
                below = parent.children(recursive=True)
                started = [child for child in below if child.name() == "sleep"]
        started += [child.parent() for child in started]
        process.send_signal(number)
    assert len(started) == 4
    assert process.pid not in {child.pid for child in started}
    assert psutil.wait_procs(started, timeout=30)[1] == []


def test_ctrl_c_during_imports_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nprint('imports', flush=True)\ntry:\n    time.sleep(60)\n"
        "except BaseException as error:\n    raise ImportError('as some packages do') from error\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from data.shell import run_module; run_module('slow')"
    )
    status, said = interrupted([sys.executable, "-c", code], b"imports\n")
    assert (status, said) == (130, b"interrupted: nothing had begun. Run the same command again.\n")


def test_a_process_that_should_not_hear_ctrl_c_does_not(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + program(
        "print('runs', flush=True)\ntime.sleep(0.3)\nreturn 5"
    )[2].replace("main.run()", "import data.shell; data.shell.leave_at_once('x')\nmain.run()")
    status, said = interrupted([sys.executable, "-c", code], b"runs\n")
    assert (status, said) == (5, b"")


def test_the_shell_imports_nothing_heavy() -> None:
    code = "import sys, data.shell; print(*({'torch', 'omegaconf', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n")
