"""Densities of times against numbers got another way: sums over a fine grid, closed forms."""

import math
from statistics import NormalDist

import pytest

from models.times import (
    PLAIN,
    Density,
    Normal,
    TimeKind,
    TimePart,
    TimeScale,
    density_of,
    log_snr,
    needs_spread,
    root_mean_square,
    shifted,
)

UNIFORM = TimePart(kind=TimeKind.uniform)
DENSITIES = {
    "plain": PLAIN,
    "logit-normal": density_of([TimePart(mean=1.0, width=1.5)], 0.0),
    "uniform": density_of([UNIFORM], 0.0),
    "mixture": density_of([TimePart(mean=-2.0, width=0.3), TimePart(mean=2, width=0.5)], 0.0),
    "half uniform": density_of([TimePart(mean=1.0), UNIFORM], 0.0),
}


def mass(density: Density, low: float, high: float) -> float:
    """Return the share between two times: the density's own formula summed over a grid."""
    steps, total = 20_000, 0.0
    for i in range(steps):
        t = low + (high - low) * (i + 0.5) / steps
        for share, of in density.parts:
            if of is None:
                total += share
                continue
            z = (math.log(t / (1 - t)) - of.mean) / of.width
            total += share * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / of.width / t / (1 - t)
    return total * (high - low) / steps


@pytest.mark.parametrize("name", DENSITIES)
def test_the_share_below_a_time_is_the_integral_of_the_density(name: str) -> None:
    density = DENSITIES[name]
    found = density.below(0.6) - density.below(0.2)
    assert found == pytest.approx(mass(density, 0.2, 0.6), rel=1e-5)
    assert (density.below(0.0), density.below(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_quantile_undoes_the_share_below(name: str) -> None:
    density = DENSITIES[name]
    for share in (1e-6, 0.1, 0.5, 0.9, 1 - 1e-6):
        assert density.below(density.quantile(share)) == pytest.approx(share, rel=1e-6)
    assert (density.quantile(0.0), density.quantile(1.0)) == (0.0, 1.0)


def test_no_parts_are_the_logit_normal_of_old() -> None:
    assert density_of([], 0.0) == PLAIN == density_of([TimePart()], 0.0)
    assert PLAIN.quantile(0.8) == pytest.approx(1 / (1 + math.exp(-NormalDist().inv_cdf(0.8))))


def test_shares_of_a_mixture_are_relative() -> None:
    parts = [TimePart(share=3.0), TimePart(kind=TimeKind.uniform, share=1.0)]
    assert density_of(parts, 0.0).parts == ((0.75, Normal(0.0, 1.0)), (0.25, None))


def test_a_density_in_log_snr_is_centred_where_the_data_has_that_ratio() -> None:
    spread = 0.28
    density = density_of([TimePart(mean=0.0, width=2.0, scale=TimeScale.log_snr)], spread)
    # Signal and noise balance where t spread = 1 - t.
    assert density.quantile(0.5) == pytest.approx(1 / (1 + spread))
    one_above = density.quantile(NormalDist().cdf(1.0))
    assert math.log((one_above * spread / (1 - one_above)) ** 2) == pytest.approx(2.0)
    assert log_snr(one_above, spread) == pytest.approx(2.0)


def test_only_a_logit_normal_in_log_snr_needs_the_spread() -> None:
    assert not needs_spread([TimePart(), UNIFORM])
    assert needs_spread([UNIFORM, TimePart(scale=TimeScale.log_snr)])


def test_a_shift_takes_its_logarithm_off_the_logit() -> None:
    moved = shifted(0.8, 3.0)
    assert math.log(moved / (1 - moved)) == pytest.approx(math.log(4) - math.log(3))
    assert (shifted(0.0, 3.0), shifted(1.0, 3.0)) == (0.0, 1.0)


def test_the_ends_have_no_signal_and_no_noise() -> None:
    assert (log_snr(0.0, 0.3), log_snr(1.0, 0.3)) == (-math.inf, math.inf)


def test_the_spread_of_all_values_is_the_root_of_the_mean_square() -> None:
    assert root_mean_square([0.3, 0.4]) == pytest.approx(math.sqrt(0.125))
