"""The small loop: planned data, a global loss, bitwise resume, the same run on two processes."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from data.config import DataConfig
from data.loading.batch import Step
from data.loading.loader import Loader
from trainer.checkpoint.read import load_latest
from trainer.config import CheckpointConfig
from trainer.layout.config import ParallelConfig
from trainer.optim_config import OptimConfig
from trainer.parallel.mesh import Mesh, alone, start_mesh, stop_mesh
from trainer.rng import normal
from trainer.run.metrics import MEASURED, read_metrics
from trainer.small import SmallTraining, Term

from .parallel.worlds import run_world

OPTIM = OptimConfig(lr=1e-2, warmup=0.1, decay=0.3, clip=0.5)
STEPS = 8
# fp32 sums over two processes in another order, carried through 8 steps of AdamW.
TOLERANCE = 2e-5

Batch = list[tuple[torch.Tensor, torch.Tensor]]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 6))


def prepare(step: Step) -> Batch:
    """Return (noisy, clean) latent rows of every sample; the noise is named by key and visit."""
    rows = []
    for pack in step.packs:
        for sample in pack.samples:
            clean = sample.latent.float().flatten(1).T
            noise = normal(tuple(clean.shape), 0, "small", sample.info.key, sample.visit)
            rows.append((clean + noise, clean))
    return rows


def loss(module: nn.Module, batch: Batch) -> list[Term]:
    errors = [(module(noisy) - clean) for noisy, clean in batch]
    squares = sum(e.square().sum() for e in errors)
    largest = sum(e.abs().sum() for e in errors)
    count = float(sum(e.numel() for e in errors))
    return [Term("mse", squares, count), Term("l1", largest, float(len(batch)), 0.001)]


def training(
    root: Path, folder: Path, mesh: Mesh | None = None, checkpoint: CheckpointConfig | None = None
) -> SmallTraining:
    mesh = mesh or alone()
    config = DataConfig(root=str(root), pack_tokens=512, packs_per_step=2)
    loader = Loader(config, "train", (4, 16, 16), 5, mesh.rank, mesh.world)
    return SmallTraining(
        network(),
        loader,
        prepare,
        loss,
        OPTIM,
        STEPS,
        folder,
        finish=lambda module: {"bias": module[2].bias.tolist()},
        checkpoint=checkpoint or CheckpointConfig(steps=3, seconds=0),
        log_every=2,
        mesh=mesh,
    )


def run(made: SmallTraining, should_stop=lambda: False) -> dict | None:
    try:
        return made.run(should_stop)
    finally:
        made.loader.close()


@pytest.fixture(scope="module")
def whole(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("small")
    assert run(training(latents, folder)) is not None
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    loaded = load_latest(folder / "checkpoints")
    assert loaded is not None
    shapes = {name: tuple(p.shape) for name, p in network().named_parameters()}
    kinds = ("param", "ema", "exp_avg", "exp_avg_sq")
    return {f"{k}/{n}": t for k in kinds for n, t in loaded.tensors(k, shapes).items()}


def test_a_run_learns_and_leaves_its_result(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["steps"] == STEPS
    assert result["bias"] == tensors(whole)["ema/2.bias"].tolist()
    records = read_metrics(whole / "metrics.jsonl")
    assert [r["step"] for r in records] == [2, 4, 6, 8]
    assert records[-1]["mse"] < records[0]["mse"]
    assert all(r["train_loss"] == pytest.approx(r["mse"] + 0.001 * r["l1"]) for r in records)


def test_a_stopped_run_resumes_bit_by_bit(latents: Path, whole: Path, tmp_path: Path) -> None:
    polls = iter([False] * 2 + [True] + [False] * 99)
    assert run(training(latents, tmp_path), lambda: next(polls)) is None
    assert not (tmp_path / "result.json").exists()
    made = training(latents, tmp_path)
    with torch.no_grad():
        made.module[0].weight.zero_()  # whatever it was initialised with
    result = run(made)
    assert result is not None
    assert result["attempts"] == 2
    expected = tensors(whole)
    assert all(torch.equal(found, expected[n]) for n, found in tensors(tmp_path).items())
    lines = [
        [
            {k: v for k, v in r.items() if k not in MEASURED}
            for r in read_metrics(f / "metrics.jsonl")
        ]
        for f in (whole, tmp_path)
    ]
    assert lines[0] == lines[1]


def test_a_finished_run_is_not_repeated(latents: Path, whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_bytes()
    assert run(training(latents, whole)) == json.loads((whole / "result.json").read_text())
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_loss_that_is_no_number_is_refused(latents: Path, tmp_path: Path) -> None:
    made = training(latents, tmp_path)
    with torch.no_grad():
        made.module[0].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"optim.lr=0.01: the loss of step 1 is nan. Use a lower"):
        run(made)


def job(root: str, folder: str) -> None:
    """Train on one process of two."""
    mesh = start_mesh(ParallelConfig(processes=2, device="cpu"))
    run(training(Path(root), Path(folder), mesh))
    stop_mesh(mesh)


@pytest.mark.dist
def test_two_processes_train_the_same_network(latents: Path, whole: Path, tmp_path: Path) -> None:
    run_world(2, "tests.trainer.test_small:job", str(latents), str(tmp_path))
    expected, found = tensors(whole), tensors(tmp_path)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=TOLERANCE)


def test_averaged_weights_stand_in_the_module_for_a_while_and_then_the_trained_ones_again(
    latents: Path, whole: Path, tmp_path: Path
) -> None:
    made = training(latents, tmp_path)
    assert run(made) is not None
    saved = tensors(whole)  # another folder, the same run

    def measure() -> None:  # and fail
        with made.averaged() as module:
            for name, parameter in module.named_parameters():
                assert torch.equal(parameter, saved[f"ema/{name}"]), name
                assert not torch.equal(parameter, saved[f"param/{name}"]), name
            raise KeyError

    with pytest.raises(KeyError):
        measure()
    for name, parameter in made.module.named_parameters():
        assert torch.equal(parameter, saved[f"param/{name}"]), name
