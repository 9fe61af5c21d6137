"""Whether rows ask for the larger of two forms, of which one holds the other."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.fit.optimum.profile import noise_scale
from sweeps.fit.optimum.solve import Fit, tiny


@dataclass(frozen=True)
class NestedTest:
    """Hold a likelihood-ratio test of a form within a larger one.

    statistic: what the larger form saves, in units of the noise; degrees: coefficients that it has
    more; p: the chance of so large a statistic were the smaller form true.
    """

    small: str
    large: str
    statistic: float
    degrees: int
    p: float


def nested_test(small: Fit, large: Fit) -> NestedTest:
    """Test the form of `small` within that of `large`, both fitted to the same rows alike.

    statistic = 2 (objective_small - objective_large) / lambda with lambda = mean psi^2 / mean psi'
    of the larger fit's residuals (Schrader and Hettmansperger 1980), against F with (degrees, rows
    less coefficients). Of least squares this is the F test. Of Huber it is approximate, for rows
    that are independent and of one noise: of 300 tables of 100 rows for which the smaller form was
    true, noise 5 delta, a test at 5 % refused it for 5 %, one at 10 % for 10 %. Noise that rows
    share (checkpoints of a run, seeds of a point) makes p too small. Read the bootstrap interval
    of the coefficient beside it (does that of skaling's k hold 1?): it draws whole clusters.

    Raises:
        ValueError: they are not fits of one objective to the same rows, one with more coefficients.
    """
    one, two = small.objective_of, large.objective_of
    degrees = large.num_free - small.num_free
    alike = (one.delta, one.residual, one.mean) == (two.delta, two.residual, two.mean)
    same = np.array_equal(small.target, large.target)
    if degrees < 1 or not alike or not same:
        raise ValueError(
            f"{small.form.name} in {large.form.name}: must be fitted to the same rows by the same "
            "delta and residual, with fewer coefficients. Fit both anew."
        )
    saved = max(small.objective - large.objective, 0.0)
    unit = noise_scale(large, smooth=True) * float(two.unit[0, 0])
    left = max(len(large.target) - large.num_free, 1)
    if saved <= tiny(two):
        statistic = 0.0
    else:
        statistic = 2 * saved / unit if unit > 0 else float("inf")
    return NestedTest(
        small.form.name, large.form.name, statistic, degrees, chance(statistic, degrees, left)
    )


def nested_tests(fits: Mapping[str, Fit]) -> list[NestedTest]:
    """Return the test of each form that holds another one (`Form.nested`), both among `fits`."""
    found = []
    for large in fits.values():
        small = fits.get(large.form.nested.name) if large.form.nested else None
        if small is not None and small.num_free < large.num_free:  # not where k is held
            found.append(nested_test(small, large))
    return found


def chance(statistic: float, degrees: int, left: int) -> float:
    """Return P(F(degrees, left) > statistic / degrees)."""
    from scipy.special import fdtrc  # a quarter of a second that no fit needs

    return float(fdtrc(degrees, left, statistic / degrees))
