"""The commands of docs/how_to/run_on_several_nodes.md as typed, with two nodes on one host."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch.submit import main
from tests.trainer.conftest import write_latents

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how_to/run_on_several_nodes.md").read_text(encoding="utf-8")


def variable(name: str) -> list[str]:
    """Return the words that the page puts into a variable of the shell."""
    found = re.search(rf'^{name}="([^"]+)"', PAGE, re.MULTILINE)
    assert found is not None
    return found[1].split()


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_latents(tmp_path_factory.mktemp("blobs"))


def test_the_page_s_job_becomes_a_script_of_two_nodes_with_eight_gpus_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*variable("site"), *variable("job"), f"run_root={tmp_path}", "dry=true"]
    assert main(words) == 0
    said = capsys.readouterr()
    for line in ("--nodes=2", "--ntasks-per-node=8", "--partition=gpu"):
        assert line in said.out
    assert re.search(r"gpus-per-node=8|gres=gpu:8", said.out)
    assert said.err == ""  # GPUs are asked for
    assert list(tmp_path.iterdir()) == []


@pytest.mark.dist
def test_two_nodes_without_a_queue_train_one_run(latents: Path, tmp_path: Path) -> None:
    block = re.search(
        r"^(python -m torch\.distributed\.run .*?)\n```", PAGE, re.MULTILINE | re.DOTALL
    )
    assert block is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = block[1].replace("\\\n", " ").replace("FIRST_NODE", "127.0.0.1").replace("$job", "")
    words = shlex.split(text.replace("29400", str(port)).replace("_node=8", "_node=1"))
    job = ["experiment=cpu_smoke", f"data.root={latents}", f"run_root={tmp_path}", "name=two"]
    job += ["log.wandb=disabled", "data.packs_per_step=2", "parallel.processes=2"]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    nodes = [
        subprocess.Popen(
            [sys.executable, *(w.replace("rank=I", f"rank={i}") for w in words[1:]), *job],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    (result,) = tmp_path.glob("two-*/result.json")
    assert json.loads(result.read_text())["world_size"] == 2
