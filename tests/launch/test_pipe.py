"""Commands that only print end without a word when their reader, such as head, has left."""

import signal
import subprocess
import sys

import pytest

COMMANDS = (
    "sweeps.predict.economics",
    "launch.logs",
    "launch.plan",
    "launch.status",
    "sweeps.compare",
    "sweeps.fit",
    "sweeps.ladder",
    "sweeps.plan",
    "sweeps.predict",
)


@pytest.mark.parametrize("module", COMMANDS)
def test_a_reader_that_leaves_ends_a_command_in_silence(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE
