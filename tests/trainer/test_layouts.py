"""The layout is invisible: processes, ZeRO stages and packs change nothing a run computes.

Two processes train every two-process run in one group; this process trains their one-process twins.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import trainer.diffusion.micro_batch
from data.loading.loader import Loader
from models.dit.model import DiT
from trainer.checkpoint.write import load_latest
from trainer.config import RunConfig
from trainer.diffusion.attempt import train_run
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Validator
from trainer.diffusion.loop import _init_generator
from trainer.identity import freeze
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh, alone
from trainer.rng import normal
from trainer.run.metrics import read_metrics

from .conftest import compose_smoke, read_json, write_latents
from .parallel.worlds import run_world

pytestmark = [
    pytest.mark.dist,
    # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

STEPS = 6
# Relative tolerances in fp32: losses and norms, parameter updates. Measured: 2e-7 and 4e-6.
LOSS, PARAMS = 1e-5, 1e-4
# Two-process runs: name, ZeRO stage, packs a step.
PAIRED = [
    ("zero0", 0, 2),
    ("zero1", 1, 2),
    ("zero2", 2, 2),
    ("zero3", 3, 2),
    ("zero1-accumulated", 1, 4),
    ("zero3-accumulated", 3, 4),
]


def compose(latents: Path, zero_stage: int, packs: int, processes: int) -> RunConfig:
    return compose_smoke(
        latents,
        f"horizon.steps={STEPS}",
        f"data.packs_per_step={packs}",
        "data.pack_tokens=256",
        "data.pool=16",
        "checkpoint.seconds=0",
        f"parallel.zero_stage={zero_stage}",
        f"parallel.processes={processes}",
    )


def train(run: RunConfig, folder: Path, stop_after: int | None = None) -> None:
    """Train in this process and note which samples each step really brought to this rank."""
    seen: list[tuple[int, list[list]]] = []
    original = Loader.next_step

    def next_step(self: Loader) -> object:
        step = original(self)
        seen.append((step.index, [[s.info.key, s.visit] for p in step.packs for s in p.samples]))
        return step

    polls = iter(range(10**6))
    Loader.next_step = next_step  # type: ignore[method-assign, assignment]
    try:
        train_run(run, folder, lambda: stop_after is not None and next(polls) >= stop_after - 1)
    finally:
        Loader.next_step = original  # type: ignore[method-assign]
    steps = read_metrics(folder / "metrics.jsonl")[-1]["step"]
    path = folder / f"seen-{steps}-{dist.get_rank()}.json"
    path.write_text(json.dumps(seen))


# --- the two processes ----------------------------------------------------------------------------


def noise_by_rank(rank: int) -> Callable[..., Tensor]:
    """Return the mistake of keying noise by rank, as many public stacks do."""

    def draw(shape: tuple[int, ...], seed: int, purpose: str, key: str, visit: int) -> Tensor:
        return normal(shape, seed + rank, purpose, key, visit)

    return draw


def validate(latents: Path, mesh: Mesh) -> list[object]:
    """Measure an untrained model on a split, shared by the ranks of a mesh."""
    run = compose(latents, 0, 2, 1)
    model = DiT(run.model).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.1, generator=generator)
    validator = Validator(run, "val_worlds", Collator(run.codec, run.text), mesh, 7)
    result = validator.measure(model)
    groups = [[g.errors, g.values, g.variance, g.clips, g.tokens] for g in result.groups]
    strata = [*result.strata.errors, *result.strata.variance, *result.strata.values]
    by_clip = [v for row in result.strata.clips for v in row]
    by_group = [v for group in groups for v in group]
    return [result.loss, result.noise, *result.by_time, *by_group, *strata, *by_clip]


def train_pairs(latents: Path, root: Path) -> None:
    """Train every two-process run as one rank of two."""
    rank = dist.get_rank()

    def job(run: RunConfig, name: str, stop_after: int | None = None) -> None:
        if rank == 0:
            freeze(run, root / name)
        dist.barrier()
        train(run, root / name, stop_after)

    for name, stage, packs in PAIRED:
        job(compose(latents, stage, packs, 2), name)
    trainer.diffusion.micro_batch.normal = noise_by_rank(rank)  # type: ignore[attr-defined]
    job(compose(latents, 0, 2, 2), "noise-by-rank")
    trainer.diffusion.micro_batch.normal = normal  # type: ignore[attr-defined]
    job(compose(latents, 1, 2, 2), "saved-by-two", stop_after=3)
    job(compose(latents, 3, 2, 2), "saved-by-one")
    values = validate(latents, Mesh(Layout(dp=2), rank, torch.device("cpu")))
    (root / f"validation-{rank}.json").write_text(json.dumps(values))


# --- this process ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train all runs; return the folder that holds theirs."""
    import warnings

    root = tmp_path_factory.mktemp("layouts")
    latents = write_latents(root / "latents")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is deprecated. Please use", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        alone = compose(latents, 0, 2, 1)
        freeze(alone, root / "saved-by-one")
        train(alone, root / "saved-by-one", stop_after=3)
        run_world(2, "tests.trainer.test_layouts:train_pairs", latents, root)
        for name, packs in (("alone", 2), ("alone-accumulated", 4)):
            run = compose(latents, 0, packs, 1)
            freeze(run, root / name)
            train(run, root / name)
        for stage in (0, 3):
            name = f"saved-by-two-resumed-zero{stage}"
            shutil.copytree(root / "saved-by-two", root / name)
            train(compose(latents, stage, 2, 1), root / name)
    return root


def params(folder: Path) -> dict[str, Tensor]:
    """Return a run's final weights from its checkpoint."""
    loaded = load_latest(folder / "checkpoints")
    assert loaded is not None
    assert loaded.index["step"] == STEPS
    return loaded.tensors("param", shapes())


def shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in initial().named_parameters()}


def initial() -> DiT:
    from models.config import ModelConfig

    model = DiT(ModelConfig(width=32, depth=2, text_width=32))
    model.reset_parameters(_init_generator(0))
    return model


def update_error(folder: Path, reference: Path) -> float:
    """Return the difference of two runs' weights relative to how far training moved them."""
    start = {name: p.detach() for name, p in initial().named_parameters()}
    found, expected = params(folder), params(reference)
    difference = sum((found[n] - expected[n]).square().sum().double() for n in start)
    moved = sum((expected[n] - start[n]).square().sum().double() for n in start)
    return float((difference / moved).sqrt())


def curve(folder: Path, key: str) -> list[float]:
    return [r[key] for r in read_metrics(folder / "metrics.jsonl") if key in r]


def loss_error(folder: Path, reference: Path) -> float:
    """Return the largest relative difference of losses, gradient norms and validation losses."""
    worst = 0.0
    for key in ("train_loss", "grad_norm", "loss"):
        found, expected = curve(folder, key), curve(reference, key)
        assert len(found) == len(expected) >= 2
        worst = max(worst, *(abs(a / b - 1) for a, b in zip(found, expected, strict=True)))
    final = [read_json(f / "result.json")["validation"] for f in (folder, reference)]
    for split, expected in final[1].items():
        worst = max(worst, abs(final[0][split]["loss"] / expected["loss"] - 1))
    return worst


def reference_of(packs: int) -> str:
    return "alone" if packs == 2 else "alone-accumulated"


def assert_equal_runs(folder: Path, reference: Path) -> None:
    assert loss_error(folder, reference) < LOSS
    assert update_error(folder, reference) < PARAMS
    counts = [read_json(f / "result.json") for f in (folder, reference)]
    for key in ("steps", "tokens", "flops", "samples", "real_token_share", "padding_share"):
        assert counts[0][key] == counts[1][key], key


@pytest.mark.parametrize(("name", "stage", "packs"), PAIRED, ids=[p[0] for p in PAIRED])
def test_two_processes_compute_what_one_does(runs: Path, name: str, stage: int, packs: int) -> None:
    assert_equal_runs(runs / name, runs / reference_of(packs))
    result = read_json(runs / name / "result.json")
    assert (result["world_size"], result["zero_stage"]) == (2, stage)


def test_noise_keyed_by_rank_would_be_noticed(runs: Path) -> None:
    folder, reference = runs / "noise-by-rank", runs / "alone"
    assert loss_error(folder, reference) > 100 * LOSS
    assert update_error(folder, reference) > 100 * PARAMS


@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_saved_by_two_continues_on_one(runs: Path, stage: int) -> None:
    folder = runs / f"saved-by-two-resumed-zero{stage}"
    assert read_json(folder / "result.json")["attempts"] == 2
    assert_equal_runs(folder, runs / "alone")


def test_a_run_saved_by_one_continues_on_two(runs: Path) -> None:
    assert read_json(runs / "saved-by-one" / "result.json")["attempts"] == 2
    assert_equal_runs(runs / "saved-by-one", runs / "alone")


def samples_by_step(folder: Path) -> dict[int, list[tuple[str, int]]]:
    """Return what all ranks read at each step, over all attempts."""
    steps: dict[int, list[tuple[str, int]]] = {}
    for path in folder.glob("seen-*.json"):
        for index, samples in json.loads(path.read_text()):
            steps.setdefault(index, []).extend((key, visit) for key, visit in samples)
    return {index: sorted(samples) for index, samples in steps.items()}


@pytest.mark.parametrize(
    "name", ["saved-by-one", "saved-by-two-resumed-zero0", "saved-by-two-resumed-zero3"]
)
def test_a_change_of_ranks_shows_every_sample_once_an_epoch(runs: Path, name: str) -> None:
    steps = samples_by_step(runs / name)
    assert steps == samples_by_step(runs / "alone")
    assert sorted(steps) == list(range(STEPS))
    seen = [sample for samples in steps.values() for sample in samples]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", ["alone-accumulated", "zero1-accumulated"])
def test_an_epoch_holds_every_sample_once(runs: Path, name: str) -> None:
    seen = [s for samples in samples_by_step(runs / name).values() for s in samples]
    first = sorted(key for key, visit in seen if visit == 0)
    assert first == [f"train-{i:05d}" for i in range(60)]


def test_validation_is_the_same_bits_on_any_number_of_ranks(runs: Path) -> None:
    expected = validate(runs / "latents", alone())
    for rank in range(2):
        assert json.loads((runs / f"validation-{rank}.json").read_text()) == expected
