"""What lasts is said while it lasts, on stderr alone; what is over in a moment is not."""

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from data import notices
from data.notices import Pulse, doing
from data.show.progress import Progress

ROOT = Path(__file__).parents[2]
LONG = 20.0  # seconds after which a test gives up waiting for a line


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be over in a moment."""
    monkeypatch.setattr(notices, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(notices, "NEXT_SECONDS", 0.001)


def test_what_lasts_is_said_while_it_lasts() -> None:
    code = (
        "from data import notices\n"
        "notices.FIRST_SECONDS, notices.NEXT_SECONDS = 0.01, 1000.0\n"
        "with notices.doing('fitting 60 runs'): input()\n"
        "print('law')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"fitting 60 runs: 0 s so far\n"
        assert process.communicate(b"\n", LONG) == (b"law\n", b"")


def test_what_is_over_in_a_moment_is_not_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "FIRST_SECONDS", LONG)
    with doing("adding"):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("at_once")
def test_it_is_said_again_and_no_more_when_it_is_over() -> None:
    told: list[float] = []
    thrice = threading.Event()

    def say(seconds: float) -> None:
        told.append(seconds)
        if len(told) > 2:
            thrice.set()
            time.sleep(0.05)  # whoever leaves waits for the line that is being written
        raise BrokenPipeError  # and whether anybody reads changes nothing

    with Pulse(say):
        assert thrice.wait(LONG)
    assert "notices" not in {thread.name for thread in threading.enumerate()}
    assert told == sorted(told)


@pytest.mark.usefixtures("at_once")
def test_after_the_first_line_it_is_long_until_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "NEXT_SECONDS", LONG)
    told: list[float] = []
    once = threading.Event()

    def say(seconds: float) -> None:
        told.append(seconds)
        once.set()

    with Pulse(say):
        assert once.wait(LONG)
        time.sleep(0.05)
    assert len(told) == 1


@pytest.mark.usefixtures("at_once")
def test_only_the_first_process_of_a_group_says_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with doing("waiting"):
        time.sleep(0.05)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("said", "seconds"), [("3600", 3600.0), ("0", 0.0), ("", 2.0), ("soon", 2.0), ("-1", 2.0)]
)
def test_a_variable_says_when_the_first_line_is_due(
    said: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINESCALE_NOTICE_SECONDS", said)
    assert notices._first_seconds() == seconds


@pytest.mark.usefixtures("at_once")
def test_signals_are_left_to_who_works() -> None:
    blocked: list[set[signal.Signals]] = []
    told = threading.Event()

    def say(seconds: float) -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))  # type: ignore[arg-type]
        told.set()

    with Pulse(say):
        assert told.wait(LONG)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= blocked[0]


def test_imports_of_a_command_are_said(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "input()\nfrom data.shell import command\n"
        "@command('Teach.', needs_words=False)\ndef main(words):\n    print('done')\n    return 3\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from data import notices\nnotices.FIRST_SECONDS, notices.NEXT_SECONDS = 0.01, 1000.0\n"
        "from data.shell import run_module; run_module('slow')"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"importing libraries: 0 s so far\n"
        assert process.communicate(b"\n", LONG) == (b"done\n", b"")
    assert process.returncode == 3


class Shown(io.StringIO):
    """A stream that tells when a line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def write(self, text: str) -> int:
        """Write text."""
        size = super().write(text)
        if "\n" in text:
            self.told.set()
        return size


@pytest.mark.usefixtures("at_once")
def test_a_loop_that_counts_says_when_it_will_end_without_being_asked() -> None:
    shown = Shown()
    with Progress("pages", Console(file=shown, width=80)) as progress:
        progress.update(2, 8, "arms")
        progress.update(4, 8, "demo")
        while "demo" not in shown.getvalue():
            assert shown.told.wait(LONG)
            shown.told.clear()
    assert "pages: 50%, demo, 0 s, ETA 0 s" in shown.getvalue().splitlines()
