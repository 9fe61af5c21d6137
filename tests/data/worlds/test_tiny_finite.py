"""Finite worlds: their clips, their entropy, and the exact denoiser's loss by other ways."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from data.worlds.tiny.finite import Finite, all_clips, errors, least_loss
from data.worlds.tiny.registry import tiny_world


def small(num_clips=5, num_values=3):
    """Return a world of a few clips of a few values."""
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (num_clips, num_values)).astype(np.float32)
    shares = rng.dirichlet(np.ones(num_clips))
    return Finite(values - (shares @ values).astype(np.float32), shares, num_values)


@pytest.mark.heavy
def test_the_finite_strip_has_3468_clips_and_11_14_bits():
    finite = all_clips(tiny_world("strip_finite"))
    assert len(finite.shares) == 12 * (1 + 6 * 2 * 2 * 3 * 4) == 3468
    assert finite.shares.sum() == pytest.approx(1)
    choice = -0.15 * np.log2(0.15) - 0.85 * np.log2(0.85)
    assert finite.entropy_bits == pytest.approx(np.log2(12) + choice + 0.85 * np.log2(288))
    assert round(finite.entropy_bits, 2) == 11.14


def test_every_scene_of_the_rotor_is_a_clip_of_its_own():
    rotor = tiny_world("rotor")
    scenes = rotor.scenes()
    assert len(scenes) == 24 * 4 * 2 * 6 * 3
    assert sum(share for _, share in scenes) == pytest.approx(1)
    few = [rotor.render(rotor.unroll(scene)).tobytes() for scene, _ in scenes[:144:3]]
    assert len(set(few)) == len(few)


def test_the_posterior_is_that_of_gaussian_densities():
    finite = small()
    rng = np.random.default_rng(1)
    values = finite.values.astype(np.float64)
    for t in (0.1, 0.5, 0.8):
        clip, noise = 2, rng.standard_normal(3)
        x_t = (1 - t) * noise + t * values[clip]
        density = [multivariate_normal(t * v, (1 - t) ** 2).pdf(x_t) for v in values]
        weights = finite.shares * density / (finite.shares @ density)
        spread = weights @ ((values - weights @ values) ** 2).sum(1) / (1 - t) ** 2
        along = (noise @ values.T)[None]
        found = errors(finite, values @ values.T, along, np.array([clip]), np.array([t]))
        assert found[0] == pytest.approx(spread, rel=1e-5)


def test_the_loss_of_the_exact_denoiser_gives_the_entropy_back():
    finite = small()
    found = least_loss(finite, 0, draws=4000, strata=64)
    # The last stratum holds what these close clips keep back: enough draws and strata, 2 %.
    assert found.bits == pytest.approx(finite.entropy_bits, rel=0.04)
    assert found.bits_error < 0.05


def test_the_loss_at_the_noisiest_time_is_the_variance_of_the_clips():
    finite = small()
    found = least_loss(finite, 0, draws=500, strata=200)
    variance = finite.shares @ (finite.values.astype(float) ** 2).sum(1) / finite.num_values
    assert found.by_time[0] == pytest.approx(variance, rel=0.05)


def test_a_world_without_a_list_of_clips_is_refused():
    with pytest.raises(ValueError, match="world=strip: has no list of its clips"):
        all_clips(tiny_world("strip"))
