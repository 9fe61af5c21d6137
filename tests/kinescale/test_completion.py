"""Tab: what a line of ``kinescale`` can go on with, and that bash and zsh ask for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.config import IngestConfig
from kinescale.commands import COMMANDS
from kinescale.completion import candidates, main

ROOT = Path(__file__).parents[2]
# Asks the completion as bash does for a line with the cursor at its end.
ASK = """
kinescale() { "$PYTHON" -m kinescale "$@"; }
compopt() { echo "compopt $*"; }
eval "$(kinescale completion bash)"
COMP_LINE="$1" COMP_POINT=${#1}
_kinescale
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(line: str) -> list[str]:
    """Return what a real bash replies."""
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            "PYTHON": sys.executable,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "KINESCALE_NOTICE_SECONDS": "3600",
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_the_first_word_is_a_command() -> None:
    assert candidates([""]) == [*COMMANDS, "completion"]
    assert candidates(["pl"]) == ["plan", "plan-study", "playground"]
    assert candidates(["plan", "nope"]) == []
    assert candidates(["nope", ""]) == []


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if row.schema])
def test_the_keys_of_every_schema_are_offered(name: str) -> None:
    found = candidates([name, ""])
    assert found
    assert all(word.endswith(("=", ".")) for word in found)


def test_keys_sections_and_choices_are_offered_as_far_as_they_are_typed() -> None:
    assert candidates(["ingest", "inp"]) == ["input="]
    assert "token_cap=" in candidates(["ingest", ""])
    assert hasattr(IngestConfig(), "token_cap")
    assert candidates(["train", "opti"]) == ["optim."]
    assert candidates(["train", "optim.w"]) == ["optim.warmup=", "optim.weight_decay="]
    assert candidates(["run", "study=cpu_i"]) == ["study=cpu_isoflop"]
    assert "machine=h100" in candidates(["plan", "machine="])
    assert candidates(["train", "data.root=x"]) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_keys_and_choices() -> None:
    assert completed("kinescale econ") == ["economics"]
    assert completed("kinescale run study=cpu_i") == ["cpu_isoflop"]
    assert completed("kinescale train  optim.be") == [
        "compopt", "-o", "nospace", "optim.beta1=", "optim.beta2=",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_script() -> None:
    code = 'compdef() { : }; eval "$("$PYTHON" -m kinescale completion zsh)"; whence -w _kinescale'
    done = subprocess.run(
        ["zsh", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "_kinescale: function\n"


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fish"]) == 2
    assert "SHELL=fish: must be bash or zsh" in capsys.readouterr().err
