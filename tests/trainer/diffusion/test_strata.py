"""Sums by stratum of time and by clip: a loss of any noise levels is theirs, without a rerun."""

import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch

from models.objectives.flow import Flow
from models.pack import TokenPack
from models.times import Density, Normal
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Validator
from trainer.diffusion.strata import Strata, strata_of, trained_shares
from trainer.diffusion.times_drawn import number_of_strata
from trainer.parallel.mesh import alone

from ..conftest import compose_smoke


def timed(pack: TokenPack, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Predict a velocity whose error depends on the time."""
    return t[pack.segment].unsqueeze(-1).expand_as(x_t)


def measured(latents: Path, times: int, samples: int = 20) -> tuple[Validator, Strata]:
    run = compose_smoke(latents, f"validation.times={times}")
    validator = Validator(run, "train", Collator(run.codec, run.text), alone(), samples)
    return validator, validator.measure(timed).strata


@pytest.mark.parametrize(("times", "strata"), [(1, 8), (3, 9), (4, 8), (8, 8), (16, 16)])
def test_a_result_keeps_at_least_eight_strata_which_the_times_nest(times: int, strata: int) -> None:
    assert number_of_strata(times) == strata


@pytest.mark.parametrize("times", [3, 4, 8])
def test_strata_are_sums_of_what_was_measured_at_their_times(latents: Path, times: int) -> None:
    validator, found = measured(latents, times)
    whole, count = validator.measure(timed), len(found.errors)
    errors, values = [0.0] * count, [0.0] * count
    for clip in range(validator.num_clips):
        for j, error in enumerate(found.clips[clip]):
            t = (j + math.modf(clip * (math.sqrt(5) - 1) / 2)[0]) / times
            errors[int(t * count)] += error
            values[int(t * count)] += found.clip_values[clip]
    assert found.errors == pytest.approx(errors, rel=1e-3)  # clips have four digits
    assert found.values == pytest.approx(values, rel=1e-12)
    total = sum(found.clip_values)
    assert sum(found.errors) / times / total == pytest.approx(whole.loss, rel=1e-12)
    assert (sum(found.variance) / total**2) ** 0.5 > 0
    finer = count // times
    by_time = [sum(found.errors[j * finer : (j + 1) * finer]) / total for j in range(times)]
    assert by_time == pytest.approx(whole.by_time, rel=1e-12)
    if finer == 1:
        assert found.losses == pytest.approx(whole.by_time, rel=1e-12)


def test_variance_of_a_stratum_is_that_of_its_noise_draws() -> None:
    errors = torch.tensor([[[1.0, 4.0], [3.0, 8.0]], [[2.0, 6.0], [2.0, 2.0]]]).double()
    found = strata_of(errors, torch.tensor([2.0, 3.0]).double(), [0.0, 0.9], [])
    assert found.errors == [2.0, 0, 0, 2.0, 6.0, 0, 0, 4.0]
    assert found.values == [2.0, 0, 0, 3.0, 2.0, 0, 0, 3.0]
    assert found.variance == [1.0, 0, 0, 0.0, 4.0, 0, 0, 4.0]
    assert found.losses[0] == 1.0
    assert math.isnan(found.losses[1])


def test_the_trained_share_of_a_stratum_is_that_of_the_density() -> None:
    density = Density(((1.0, Normal(1.0, 1.5)),))
    found = trained_shares(Flow(512.0, density=density), [100, 200], [0.0, 1.0], 8)
    ends = [NormalDist(1.0, 1.5).cdf(math.log(i / (8 - i))) for i in range(1, 8)]
    expected = [b - a for a, b in zip([0.0, *ends], [*ends, 1.0], strict=True)]
    assert found == pytest.approx(expected, abs=2 / 512)
    assert sum(found) == pytest.approx(1.0)


def test_longer_clips_are_trained_at_noisier_strata_and_a_window_is_parted_itself() -> None:
    short, long = (trained_shares(Flow(100.0), [n], [0.0, 1.0], 8) for n in (100, 1600))
    assert sum(long[:2]) > 2 * sum(short[:2])
    window = trained_shares(Flow(100.0, window=(0.5, 1.0)), [100], [0.5, 1.0], 2)
    below = NormalDist().cdf(math.log(3)) * 2 - 1  # of t in [0.5, 0.75] among [0.5, 1]
    assert window == pytest.approx([below, 1 - below], abs=2 / 512)


def test_what_is_trained_is_no_part_of_what_was_measured(latents: Path) -> None:
    runs = [compose_smoke(latents, f"objective.density=[{{mean: {m}}}]") for m in (0, 2)]
    one, other = (
        Validator(run, "train", Collator(run.codec, run.text), alone(), 3).measure(timed)
        for run in runs
    )
    assert one == other
    assert one.strata.trained != other.strata.trained
