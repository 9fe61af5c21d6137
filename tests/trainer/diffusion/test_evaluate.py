"""The quiet y-axis: repeatable, shared by any ranks, with a noise estimate that can be trusted."""

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from data.loading.loader import load_fixed
from models.dit.model import DiT
from models.objectives.flow import flow_errors
from models.pack import TokenPack
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Stopped, Validator
from trainer.diffusion.micro_batch import MicroBatch
from trainer.layout.layout import Layout
from trainer.parallel.mesh import Mesh, alone
from trainer.rng import normal

from .. import conftest
from ..conftest import compose_smoke, write_latents

ALONE = alone()


def build(run: RunConfig, samples: int, split: str = "train") -> Validator:
    return Validator(run, split, Collator(run.codec, run.text), ALONE, samples)


def silent(pack: TokenPack, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Predict no velocity at all."""
    return torch.zeros_like(x_t)


@pytest.fixture(scope="module")
def model(latents: Path) -> DiT:
    """Return a model with random weights everywhere."""
    model = DiT(compose_smoke(latents).model).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.1, generator=generator)
    return model


def test_measuring_twice_gives_the_same_bits(latents: Path, model: DiT) -> None:
    run = compose_smoke(latents)
    validator = build(run, 6, "val_worlds")
    first, second = validator.measure(model), validator.measure(model)
    again = build(run, 6, "val_worlds").measure(model)
    assert first == second == again
    assert first.clips == 6


def test_training_seed_and_packing_do_not_move_the_validation(latents: Path, model: DiT) -> None:
    plain = build(compose_smoke(latents), 6).measure(model)
    other = compose_smoke(latents, "seed=5", "data.pack_tokens=256", "objective.shift_tokens=9")
    assert build(other, 6).measure(model) == plain
    noise = compose_smoke(latents, "validation.noise_seed=5")
    assert build(noise, 6).measure(model) != plain


def test_strata_average_to_the_loss(latents: Path, model: DiT) -> None:
    result = build(compose_smoke(latents, "validation.times=5"), 8).measure(model)
    assert len(result.by_time) == 5
    assert np.mean(result.by_time) == pytest.approx(result.loss, rel=1e-12)
    assert len(set(result.by_time)) == 5


def test_groups_add_up_to_the_loss_and_to_its_noise(latents: Path, model: DiT) -> None:
    result = build(compose_smoke(latents), 60).measure(model)
    errors, values = (sum(getattr(g, k) for g in result.groups) for k in ("errors", "values"))
    assert errors / values == pytest.approx(result.loss, rel=1e-12)
    noise = sum(g.variance for g in result.groups) ** 0.5 / values
    assert noise == pytest.approx(result.noise, rel=1e-12)
    assert sum(g.clips for g in result.groups) == result.clips == 60
    assert sum(g.tokens for g in result.groups) == result.tokens
    shapes = [(g.num_frames, g.height, g.width) for g in result.groups]
    assert shapes == sorted(conftest.SIZES)
    assert {g.world for g in result.groups} == {"blobs"}


def test_a_group_holds_the_losses_of_its_clips(latents: Path, model: DiT) -> None:
    validator = build(compose_smoke(latents), 24)
    result, losses = validator.measure_clips(model)
    alone = [info.num_frames == 1 for info in validator.infos]
    values = {item.clip: item.values for item in validator._items}
    stills = sum(float(losses[i]) * values[i] for i, still in enumerate(alone) if still)
    groups = [g for g in result.groups if g.num_frames == 1]
    assert sum(g.errors for g in groups) == pytest.approx(stills, rel=1e-12)
    assert sum(g.clips for g in groups) == sum(alone) > 0
    assert sum(g.values for g in groups) == sum(values[i] for i, s in enumerate(alone) if s)


def test_worlds_are_groups_of_their_own(latents: Path, model: DiT) -> None:
    validator = build(compose_smoke(latents), 6)
    whole = validator.measure(model)
    validator.infos[:3] = [replace(i, source="moon/seed-1") for i in validator.infos[:3]]
    result = validator.measure(model)
    clips = {w: sum(g.clips for g in result.groups if g.world == w) for w in ("blobs", "moon")}
    assert clips == {"blobs": 3, "moon": 3}
    # Names of groups decide nothing: the loss keeps its bits.
    assert (result.loss, result.noise, result.by_time) == (whole.loss, whole.noise, whole.by_time)


def test_the_loss_of_a_silent_model_is_that_of_the_data(latents: Path) -> None:
    # A velocity of 0 leaves E|x_1 - x_0|^2 a value: the mean square of the data plus 1 for noise.
    validator = build(compose_smoke(latents), 60)
    packs = {item.clip: item.batch.pack for item in validator._items}.values()
    squares = sum((p.latent.double().square() * p.valid).sum() for p in packs)
    expected = 1 + float(squares / sum(p.valid.sum() for p in packs))
    result = validator.measure(silent)
    assert result.loss == pytest.approx(expected, abs=4 * result.noise)


def test_one_draw_has_no_noise_estimate(latents: Path, model: DiT) -> None:
    result = build(compose_smoke(latents), 3).measure(model, draws=1)
    assert np.isnan(result.noise)
    assert all(np.isnan(group.variance) for group in result.groups)


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set whose clips have one size, so that each brings the same noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "SIZES", [(1, 64, 64)])
        return write_latents(tmp_path_factory.mktemp("alike"))


@pytest.mark.heavy
def test_the_noise_estimate_shrinks_with_the_square_root_of_the_clips(alike: Path) -> None:
    def noise(samples: int) -> float:
        squares = []
        for seed in range(8):
            run = compose_smoke(alike, f"validation.noise_seed={seed}")
            squares.append(build(run, samples).measure(silent).noise ** 2)
        return float(np.sqrt(np.mean(squares)))

    assert noise(6) / noise(54) == pytest.approx(3, rel=0.25)


@pytest.mark.heavy
def test_the_noise_estimate_is_the_spread_over_noise_seeds(alike: Path) -> None:
    results = []
    for seed in range(16):
        run = compose_smoke(alike, f"validation.noise_seed={seed}")
        results.append(build(run, 6).measure(silent))
    spread = np.std([r.loss for r in results], ddof=1)
    # Stratified times share part of a draw's offset, so the two draws differ by that too.
    estimate = np.sqrt(np.mean([r.noise**2 for r in results]))
    assert estimate == pytest.approx(spread, rel=0.4)


def test_an_unknown_split_is_named(latents: Path) -> None:
    with pytest.raises(ValueError, match=r"split=val_moon: .* is missing"):
        build(compose_smoke(latents), 3, "val_moon")


def crooked(pack: TokenPack, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Predict something that depends on everything."""
    return 0.3 * x_t + t[pack.segment].unsqueeze(-1) * pack.place.sum(1, keepdim=True)


def test_a_validation_is_the_mean_over_clips_draws_and_strata_by_hand(latents: Path) -> None:
    run = compose_smoke(latents, "validation.times=3", "validation.noise_seed=11")
    collator, golden = Collator(run.codec, run.text), (math.sqrt(5) - 1) / 2
    samples = load_fixed(run.data, "val_worlds", 7)
    clips = [collator.encode(s) for s in samples]
    errors, values = np.zeros((7, 2, 3)), np.zeros(7)
    for i, clip in enumerate(clips):
        alone = collator.pack([clip], [CaptionUse.dense])
        values[i] = float(alone.valid.sum())
        for draw in range(2):
            for stratum in range(3):
                purpose = f"val-noise-{draw}"
                x_0 = normal(tuple(clip.tokens.shape), 11, purpose, samples[i].info.key, stratum)
                t = (stratum + math.modf(i * golden)[0]) / 3
                x_t = (1 - t) * x_0 + t * clip.tokens
                error = crooked(alone, x_t, torch.tensor([t])) - (clip.tokens - x_0)
                errors[i, draw, stratum] = float((error * alone.valid).square().sum())
    validator = build(run, 7, "val_worlds")
    result, losses = validator.measure_clips(crooked)
    assert result.loss == pytest.approx(errors.mean((1, 2)).sum() / values.sum(), rel=1e-5)
    by_time = errors.mean(1).sum(0) / values.sum()
    assert result.by_time == pytest.approx(by_time.tolist(), rel=1e-5)
    halves = (errors[:, 0] - errors[:, 1]).mean(1) / 2
    assert result.noise == pytest.approx(math.sqrt((halves**2).sum()) / values.sum(), rel=1e-3)
    assert losses.tolist() == pytest.approx((errors.mean((1, 2)) / values).tolist(), rel=1e-5)
    assert (result.clips, result.tokens) == (7, sum(len(c.tokens) for c in clips))
    one = validator.measure(crooked, draws=1)
    assert one.loss == pytest.approx(errors[:, 0].mean(1).sum() / values.sum(), rel=1e-5)
    (first, *_) = result.groups
    shapes = [(i.num_frames, i.height, i.width) for i in validator.infos]
    own = [i for i in range(7) if shapes[i] == (first.num_frames, first.height, first.width)]
    assert first.clips == len(own) > 0
    assert first.errors == pytest.approx(errors.mean((1, 2))[own].sum(), rel=1e-5)
    assert first.variance == pytest.approx((halves[own] ** 2).sum(), rel=1e-3)
    assert first.values == values[own].sum()
    assert first.tokens == sum(len(clips[i].tokens) for i in own)


class Recording(Mesh):
    """A rank that sums nothing and keeps what it was asked to sum."""

    asked: ClassVar[list[tuple[float, ...]]] = []

    def sum(self, *values: float) -> list[float]:
        self.asked.append(values)
        return list(values)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_the_clips_evenly_and_together_measure_each_once(
    latents: Path, world: int
) -> None:
    run = compose_smoke(latents)
    collator, runs = Collator(run.codec, run.text), []
    totals = []
    for rank in range(world):
        mesh = Recording(Layout(dp=world), rank, torch.device("cpu"))
        mesh.asked.clear()
        validator = Validator(run, "val_worlds", collator, mesh, 7)
        assert validator.num_clips == 7
        seen = []

        def errors_of(batches: list[MicroBatch], seen: list[str] = seen) -> list[torch.Tensor]:
            seen += [batch.keys[0] for batch in batches]
            return [flow_errors(crooked, b.pack, b.x_0, b.t) for b in batches]

        validator.measure_by(errors_of)
        runs.append(len(seen))
        totals.append(mesh.asked[-1])
    assert set(runs) == {2 * math.ceil(7 / world)}  # of two draws each
    whole = build(run, 7, "val_worlds").measure(crooked)
    summed = np.sum(totals, axis=0)
    errors, values = summed[: 7 * 2 * 2], summed[7 * 2 * 2 :]
    assert errors.sum() / 4 / values.sum() == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("world", [1, 3])
def test_no_micro_batch_of_a_validation_is_longer_than_a_pack_and_ranks_have_equally_many(
    latents: Path, model: DiT, world: int
) -> None:
    settings = ("validation.times=5", "validation.samples=7")
    run, narrow = (compose_smoke(latents, *settings, f"data.pack_tokens={n}") for n in (1024, 130))
    collator, totals, counts = Collator(run.codec, run.text), [], set()
    for rank in range(world):
        mesh = Recording(Layout(dp=world, cp=2), 2 * rank, torch.device("cpu"))
        mesh.asked.clear()
        items = Validator(narrow, "val_worlds", collator, mesh, 7)._items
        assert max(item.batch.tokens for item in items) <= 130
        for item in items:  # and it keeps the memory of its own rows alone
            for tensor in (item.batch.pack.latent, item.batch.pack.positions, item.batch.x_0):
                assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        counts.add(len(items))
        totals += [item.clip for item in items if item.counts]
    assert len(counts) == 1
    assert max(counts) > 2 * math.ceil(7 / world)  # some clips are cut
    assert set(totals) == set(range(7))
    whole, cut = (build(r, 7, "val_worlds").measure(model) for r in (run, narrow))
    assert cut.by_time == pytest.approx(whole.by_time, rel=1e-6)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert cut.noise == pytest.approx(whole.noise, rel=1e-3)


def test_a_signal_stops_a_validation_between_two_looks_of_four_clips(latents: Path) -> None:
    validator, seen = build(compose_smoke(latents), 7, "val_worlds"), []

    def errors_of(batches: list[MicroBatch]) -> list[torch.Tensor]:
        seen.append(len(batches))
        return [flow_errors(silent, b.pack, b.x_0, b.t) for b in batches]

    with pytest.raises(Stopped):
        validator.measure_by(errors_of, should_stop=lambda: len(seen) == 2)
    assert seen == [4, 4]
    seen.clear()
    looked = validator.measure_by(errors_of, should_stop=lambda: False)
    assert seen == [4, 4, 4, 2]
    seen.clear()
    assert validator.measure_by(errors_of) == looked
    assert seen == [14]
