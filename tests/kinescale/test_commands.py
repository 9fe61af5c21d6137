"""Every command, from its table: it is there, it teaches, and it ends with one line that helps."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from data.shell import Command, quick_help
from kinescale import __version__
from kinescale.commands import COMMANDS, ROOMS

ROOT = Path(__file__).parents[2]
# What each command is told to read, or where to write: {none} does not exist, {below} lies below a
# file. Both have a space, a bracket and an umlaut in their names.
WORDS = {
    "ingest": "input={none} output=out",
    "demo-data": "root={below} tiny=true",
    "worlds": "root={below} num_train_clips=1 num_val_clips=1",
    "crop": "root={none} out=out",
    "reshape": "root={none} out=out scale=0.5",
    "index": "{none} train",
    "sheet": "{none}",
    "decode-check": "{none}",
    "train": "experiment=cpu_smoke horizon.steps=1 run_root={below}",
    "encode": "data.root={none} out=out",
    "generate": "run={none} prompt=x out=x.mp4",
    "caption": "root={none} out=out weights={none}",
    "expand": "prompts={none} out=out.jsonl endpoint=http://127.0.0.1:9 model=m",
    "export": "run={none} out=out.safetensors",
    "score": "run={none} out=out.json",
    "probe": "run={none}",
    "tasks": "run={none} out={below}",
    "continuations": "run={none}",
    "attributes": "run={none} clips={none} root={none} out=out.json",
    "framing": "run={none} clips={none} root={none} out=out.json",
    "codec-statistics": "codec.path={none} codec.kind=diffusers",
    "gpu-check": "--only {none}",
    "node-check": "{none}",
    "wandb-sync": "{none}",
    "tensorboard": "{none}",
    "plan": "model={none} horizon.steps=1",
    "submit": "{none}",
    "array": "{none}",
    "status": "{none}",
    "logs": "{none}",
    "cancel": "{none}",
    "doctor": "cluster={none}",
    "demo": "",
    "run": "study={none}",
    "studies": "{none}",
    "plan-study": "study={none}",
    "watch": "{none} --once",
    "playground": "study={none}",
    "fit": "table={none}",
    "compare": "{none} {none}",
    "predict": "study={none} gpus=1 days=1",
    "economics": "law={none}",
    "report": "{none}",
    "keys": "{none}",
    "summary": "{none}",
    "archive": "{none} out",
    "ladder": "low={none}",
    "workspaces": "{none}",
}


def kinescale(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``kinescale`` as a process, from any folder."""
    command = [sys.executable, "-m", "kinescale", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=env)


def main_of(name: str) -> Command:
    main = import_module(COMMANDS[name].module).main
    assert isinstance(main, Command)
    return main


def test_every_command_is_tried_here() -> None:
    assert WORDS.keys() == COMMANDS.keys()
    assert sum(map(len, ROOMS.values())) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_teaches_by_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = quick_help(COMMANDS[name].module)
    if not text:
        assert main_of(name)(["--help"]) == 0
        text = capsys.readouterr().out
    assert f"kinescale {name}" in text
    assert "python -m" not in text


@pytest.mark.parametrize("name", [name for name in COMMANDS if WORDS[name]])
def test_a_folder_that_cannot_be_ends_in_one_line_and_leaves_nothing(
    name: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    (tmp_path / "a file").write_text("")
    places = {"none": tmp_path / "nö (2) here", "below": tmp_path / "a file/below ü"}
    words = [word.format(**places) for word in WORDS[name].split(" ")]
    assert main_of(name)(words) == 2
    said = capfd.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.err.rstrip().endswith(".")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


# Commands that have all they need and would write to {disk}, which is read-only.
WRITES = {
    "worlds": "root={disk}/w num_train_clips=1 num_val_clips=1",
    "demo-data": "root={disk}/d tiny=true",
    "archive": "{root}/docs/studies/demo {disk}/out",
    "report": "{disk}/demo",
    "workspaces": "{disk}/demo",
    "economics": "law={root}/docs/studies/demo/law.json out={disk}/price",
}


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a read-only disk with a study: nobody is kept from writing there by permissions."""
    folder = tmp_path_factory.mktemp("read only ü")
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    shutil.copytree(ROOT / "docs/studies/demo", folder / "demo")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.heavy
@pytest.mark.parametrize("name", WRITES)
def test_a_disk_that_cannot_be_written_is_one_line(
    name: str, read_only: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marks = {"{disk}": str(read_only), "{root}": str(ROOT)}
    words = WRITES[name].split(" ")
    for mark, place in marks.items():
        words = [word.replace(mark, place) for word in words]
    assert main_of(name)(words) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"error: {read_only}/")
    assert said.endswith(": cannot be written: its disk is read-only. Choose another place.\n")
    assert ".tmp" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(name: str) -> None:
    kept = main_of(name).kept
    assert "same command" in kept
    assert "\n" not in kept


def test_the_map_lists_every_command_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['kinescale']\n"
        "from kinescale.__main__ import main\n"
        "try: main()\n"
        "finally: print(*{'torch', 'omegaconf', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")
    lines = done.stdout.splitlines()
    for row in COMMANDS.values():
        assert any(line.split()[:1] == [row.name] and row.line in line for line in lines)
    assert max(map(len, lines)) <= 88
    positions = [done.stdout.index(f"\n{room}: ") for room in ROOMS]
    assert positions == sorted(positions)


def test_help_of_a_command_that_needs_torch_does_not_import_it(tmp_path: Path) -> None:
    done = kinescale("help", "export", cwd=tmp_path)
    assert done.stdout.startswith("Write the weights of a trained run")
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        "import sys\nfrom data.shell import run_module\n"
        "try: run_module('trainer.diffusion.export', ['--help'])\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "False\n"


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    done = kinescale("comapre", "a", "b")
    said = "error: comapre: is no command. Did you mean compare?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    done = kinescale("xyzzy")
    assert "Run kinescale for the list." in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert kinescale("--version").stdout == f"kinescale {__version__}\n"


@pytest.mark.heavy
def test_a_command_runs_from_any_folder_and_returns_its_status(tmp_path: Path) -> None:
    table = ROOT / "docs/studies/demo/runs.csv"
    words = [f"table={table}", "out=my ü/law.json", "resamples=20"]
    done = kinescale("fit", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "my ü/law.json").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_lists_and_runs_its_commands(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", room], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [row.name for row in ROOMS[room]]


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("kinescale")
    if not script.exists():
        pytest.skip("the project was installed before it had a console script (make setup)")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, timeout=300)
    assert done.stdout == f"kinescale {__version__}\n"
