"""A network cut over tensor and context ranks draws the clips of the whole one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.network import initial_values
from trainer.generate.arguments import take_axes
from trainer.generate.generate import facts_of, load, main
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler
from trainer.identity import freeze
from trainer.layout.plan import Fragment
from trainer.parallel.workers import join_workers

from ..checkpoints import save_pieces
from ..conftest import compose_smoke
from ..parallel.worlds import run_world

SHAPE = {"height": 48, "width": 32, "steps": 2, "num_frames": 5}  # 12 tokens, which 8 do not divide
REQUESTS = [
    Request("a.mp4", prompt="a blob", guidance=2.0, **SHAPE),
    Request("b.mp4", prompt="two", seed=1, **SHAPE | {"num_frames": 9}),
    Request("c.mp4", task=Task.loop, **SHAPE | {"num_frames": 8}),
]


@pytest.fixture(scope="module")
def folder(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose weights are all drawn: of one that learned little, layers are zero."""
    folder = tmp_path_factory.mktemp("run")
    run = compose_smoke(latents, "horizon.steps=3", "model.head_dim=8", "model.depth=2")
    freeze(run, folder)
    generator = torch.Generator().manual_seed(3)
    pieces = []
    for name, value in initial_values(run.model, generator):
        drawn = value + 0.1 * torch.randn(value.shape, generator=generator)
        pieces.append(Fragment(name, 0, {"ema": drawn.flatten()}))
    save_pieces(folder / "checkpoints", 3, pieces, {"progress": {"step": 3}})
    return folder


def draw(folder: Path, out: Path, cuts: list[tuple[int, int]]) -> None:
    """As one rank: draw the requests by networks that are cut so; leave latents behind."""
    for tp, cp in cuts:
        mesh = join_workers("cpu", tp, cp)
        run, model, weights = load(folder, mesh)
        latents = dict(Sampler(run, model, 40).draw(REQUESTS))
        name = f"{tp}-{cp}-{mesh.rank}"
        np.savez(out / f"{name}.npz", **{str(n): value.numpy() for n, value in latents.items()})
        (out / f"{name}.json").write_text(json.dumps(facts_of(run, weights)))


def apart(found: Path, expected: Path) -> float:
    """Return the largest difference between the latents of two files, beside their size."""
    with np.load(found) as mine, np.load(expected) as theirs:
        assert set(mine.files) == set(theirs.files) == {"0", "1", "2"}
        return max(
            float(np.abs(mine[n] - theirs[n]).max() / np.abs(theirs[n]).max()) for n in mine.files
        )


@pytest.mark.dist
def test_two_ranks_draw_the_clips_of_one(folder: Path, tmp_path: Path) -> None:
    job = "tests.trainer.generate.test_split:draw"
    run_world(1, job, folder, tmp_path, [(1, 1)])
    run_world(2, job, folder, tmp_path, [(2, 1), (1, 2)])
    for cut in ("2-1", "1-2"):
        assert apart(tmp_path / f"{cut}-0.npz", tmp_path / "1-1-0.npz") < 1e-5
        assert apart(tmp_path / f"{cut}-1.npz", tmp_path / f"{cut}-0.npz") == 0
    said = {path.read_text() for path in tmp_path.glob("*.json")}
    assert len(said) == 1  # the weights of all are one


@pytest.mark.parametrize("word", ["tp=0", "cp=two", "tp="])
def test_axes_that_are_no_number_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"must be a number of processes. Use .p=1"):
        take_axes([word])


def test_axes_are_taken_out_of_the_arguments() -> None:
    assert take_axes(["run=a", "tp=4", "prompt=tp=3", "cp=2"]) == (["run=a", "prompt=tp=3"], 4, 2)


def test_a_cut_that_processes_or_heads_do_not_allow_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={folder}", "out=x.mp4", "tp=2"]) == 2
    assert "parallel.processes=1: must be a multiple" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main([f"run={folder}", "out=x.mp4", "tp=3"]) == 2
    assert "parallel.tp=3: must divide model.num_heads=4" in capsys.readouterr().err
