"""A run is warned of noise levels that it validates and hardly trains."""

from pathlib import Path

import pytest

from models.objectives.flow import Flow
from models.times import Density, Normal
from trainer.diffusion.strata import trained_shares
from trainer.diffusion.times_drawn import starved_times

from ..conftest import compose_smoke


@pytest.mark.parametrize("window", [[0.0, 1.0], [0.25, 1.0]])
def test_starved_strata_are_those_that_the_objectives_own_draws_starve(
    latents: Path, window: list[float]
) -> None:
    run = compose_smoke(latents, "objective.shift_tokens=512", "validation.times=8")
    run.objective.t_range = window
    flow = Flow(512.0, window=(window[0], window[1]), density=Density(((1.0, Normal(0.0, 1.0)),)))
    lengths = [600, 8192, 75_600, 75_600]
    shares = trained_shares(flow, lengths, window, 8)
    starved = [i for i, share in enumerate(shares) if share < 0.01]
    said = starved_times(run, {600: 1, 8192: 1, 75_600: 2})
    assert starved
    first = window[0] + (1 - window[0]) * starved[0] / 8
    assert said.startswith(f"{len(starved)} of 8 strata of t that validation weighs evenly")
    assert f"between {first:.3g} and 1, get" in said
    share = float(said.split("get ")[1].split("%")[0]) / 100
    assert share == pytest.approx(sum(shares[i] for i in starved), abs=5e-4)


def test_a_cap_and_another_density_feed_them(latents: Path) -> None:
    run = compose_smoke(latents, "objective.shift_tokens=512")
    assert starved_times(run, {512: 1}) == ""
    assert starved_times(run, {75_600: 1})
    run.objective.most_shift = 1.0
    assert starved_times(run, {75_600: 1}) == ""
