"""The linear denoiser against dense matrices, and against what other linear maps reach."""

import numpy as np
import pytest

from trainer.probes.likelihood.gaussian import ROUNDING, Gaussian, fit_gaussian

D, K = 7, 3


def model(rest: float = 0.05) -> tuple[Gaussian, np.ndarray]:
    """A distribution of seven values, and its covariance written out."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(D, K)))[0]
    variances = np.array([2.0, 0.7, 0.2])
    covariance = axes @ np.diag(variances - rest) @ axes.T + rest * np.eye(D)
    return Gaussian(rng.normal(size=D), axes, variances, rest), covariance


def draws(gaussian: Gaussian, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return gaussian.mean + rng.normal(size=(count, D)) @ np.linalg.cholesky(covariance).T


def test_the_velocity_is_the_conditional_mean_of_joint_normals() -> None:
    gaussian, covariance = model()
    x_t = np.random.default_rng(1).normal(size=(4, D))
    for t in (0.05, 0.5, 0.95):
        # x_1 - x_0 and x_t are jointly normal: regress the one on the other.
        cross = t * covariance - (1 - t) * np.eye(D)
        seen = t**2 * covariance + (1 - t) ** 2 * np.eye(D)
        expected = gaussian.mean + (x_t - t * gaussian.mean) @ np.linalg.solve(seen, cross.T)
        assert gaussian.velocity(x_t, np.full(4, t)) == pytest.approx(expected)


def test_what_is_given_conditions_as_a_schur_complement_does() -> None:
    gaussian, covariance = model()
    known = np.array([True, False, True, True, False, False, True])
    values = np.random.default_rng(2).normal(size=(3, 4))
    found = gaussian.given(known)
    seen = covariance[np.ix_(known, known)]
    cross = covariance[np.ix_(~known, known)]
    slope = np.linalg.solve(seen, cross.T)
    expected = gaussian.mean[~known] + (values - gaussian.mean[known]) @ slope
    assert found.means(values) == pytest.approx(expected)
    left = covariance[np.ix_(~known, ~known)] - cross @ slope
    about = found.about
    spread = about.axes @ np.diag(about.variances - about.rest) @ about.axes.T
    assert spread + about.rest * np.eye(3) == pytest.approx(left)


def test_a_fit_finds_mean_and_covariance_of_normal_clips() -> None:
    gaussian, covariance = model()
    found = fit_gaussian(draws(gaussian, covariance, 20_000, 3))
    spread = found.axes @ np.diag(found.variances - found.rest) @ found.axes.T
    assert found.mean == pytest.approx(gaussian.mean, abs=0.05)
    assert spread + found.rest * np.eye(D) == pytest.approx(covariance, abs=0.06)


def test_fewer_clips_than_values_leave_the_rest_to_all_other_directions() -> None:
    rng = np.random.default_rng(4)
    found = fit_gaussian(rng.normal(size=(20, 400)))
    assert found.axes.shape == (400, 9)
    assert found.rest == pytest.approx(1, abs=0.1)
    # Axes of ten clips say nothing of ten others: no variance along them is exaggerated.
    assert found.variances.mean() == pytest.approx(1, abs=0.3)


def test_clips_that_never_vary_vary_by_rounding() -> None:
    assert fit_gaussian(np.ones((16, 5))).rest == ROUNDING


def test_seven_clips_are_too_few() -> None:
    with pytest.raises(ValueError, match="must be at least 8"):
        fit_gaussian(np.ones((7, 5)))
