"""A checkpoint of any layout continues under any other, with any ZeRO stage and world size."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from torch import Tensor

from models.architecture import specification_of
from models.network import initial_values
from trainer.checkpoint.write import load_latest
from trainer.diffusion.loop import _init_generator
from trainer.run.metrics import read_metrics

from ..conftest import write_latents
from .reshard import STEPS, Shape, compose
from .worlds import run_world

pytestmark = pytest.mark.dist

TOLERANCE = 1e-5  # relative, in fp32, as for parity
ALONE = Shape()
SHAPES = [
    ALONE,
    Shape(tp=2, zero=1),
    Shape(pp=2, zero=2),
    Shape(cp=2, zero=3),
    Shape(dp=4, zero=1),
    Shape(tp=2, dp=2, zero=3),
    Shape(tp=2, cp=2, pp=2, zero=1),
    Shape(tp=2, pp=2, dp=2, zero=0),
]
RING = [*pairwise([*SHAPES, ALONE])]
OTHERS = [(a, b) for a in SHAPES for b in SHAPES if a != b and (a, b) not in RING]
COLUMNS = ["saved under", "continued under", "loss and norm", "weights", "validation"]


def continue_all(pairs: list[tuple[Shape, Shape]], root: Path) -> Path:
    """Train to the half under the first shape of each pair, then to the end under the second."""
    latents = write_latents(root / "latents")
    first = {a.name: a for a, _ in pairs}
    train([(ALONE, "alone", False), *((a, f"from-{a.name}", True) for a in first.values())], root)
    for a, b in pairs:
        shutil.copytree(root / f"from-{a.name}", root / pair_name(a, b))
    train([(b, pair_name(a, b), False) for a, b in pairs], root)
    assert latents.is_dir()
    return root


def train(jobs: list[tuple[Shape, str, bool]], root: Path) -> None:
    """Train jobs world by world."""
    for world in sorted({shape.world for shape, *_ in jobs}):
        mine = [job for job in jobs if job[0].world == world]
        run_world(world, "tests.trainer.parallel.reshard:run_jobs", mine, root / "latents", root)


def pair_name(a: Shape, b: Shape) -> str:
    return f"{a.name}-to-{b.name}"


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return continue_all(RING, tmp_path_factory.mktemp("ring"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return continue_all(OTHERS, tmp_path_factory.mktemp("others"))


def weights(folder: Path, root: Path, kind: str = "param") -> dict[str, Tensor]:
    loaded = load_latest(folder / "checkpoints")
    assert loaded is not None
    assert loaded.index["step"] == STEPS
    facts = specification_of(compose(ALONE, root / "latents").model)
    return loaded.tensors(kind, facts.shapes, facts.cuts)


def moved_apart(folder: Path, root: Path) -> float:
    """Return the distance of two runs' weights over how far training moved them, all together."""
    start = dict(initial_values(compose(ALONE, root / "latents").model, _init_generator(0)))
    mine, theirs = weights(folder, root), weights(root / "alone", root)
    apart = sum((mine[n] - theirs[n]).double().square().sum() for n in start)
    moved = sum((theirs[n] - start[n]).double().square().sum() for n in start)
    return float((apart / moved) ** 0.5)


def worst(folder: Path, root: Path, *keys: str) -> float:
    """Return the largest relative difference of values in metrics.jsonl."""
    found = []
    for key in keys:
        mine, theirs = (
            [r[key] for r in read_metrics(f / "metrics.jsonl") if key in r]
            for f in (folder, root / "alone")
        )
        assert len(mine) == len(theirs) >= 2
        found += [abs(a / b - 1) for a, b in zip(mine, theirs, strict=True)]
    return max(found)


def check(a: Shape, b: Shape, root: Path, table: Callable[..., Callable[..., None]]) -> None:
    folder = root / pair_name(a, b)
    errors = (
        worst(folder, root, "train_loss", "grad_norm"),
        moved_apart(folder, root),
        worst(folder, root, "loss"),
    )
    row = table("a checkpoint of one layout under another, relative, fp32", COLUMNS)
    row(a.name, b.name, *(f"{e:.1e}" for e in errors))
    assert max(errors) < TOLERANCE, errors
    result = json.loads((folder / "result.json").read_text())
    assert (result["attempts"], result["steps"], result["updates"]) == (2, STEPS, STEPS)


@pytest.mark.parametrize(("a", "b"), RING, ids=lambda shape: shape.name)
def test_a_run_continues_under_another_layout(
    ring: Path, a: Shape, b: Shape, summary_table: Callable[..., Callable[..., None]]
) -> None:
    check(a, b, ring, summary_table)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), OTHERS, ids=lambda shape: shape.name)
def test_a_run_continues_under_any_other_layout(
    others: Path, a: Shape, b: Shape, summary_table: Callable[..., Callable[..., None]]
) -> None:
    check(a, b, others, summary_table)


@pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq", "ema"])
def test_the_whole_optimizer_state_reshards(ring: Path, kind: str) -> None:
    expected = weights(ring / "alone", ring, kind)
    for a, b in RING:
        found = weights(ring / pair_name(a, b), ring, kind)
        for name, tensor in expected.items():
            assert (found[name] - tensor).norm() <= 1e-4 * tensor.norm(), (a, b, name)
