"""The dip against its definition, solved as a linear program, and against the published table."""

import numpy as np
import pytest
from scipy.optimize import linprog

from sweeps.emergence.dip import dip, dip_p


def dip_by_definition(values) -> float:
    """Return the least distance of F to a unimodal G, over modes at every value.

    G is known by its values at the data; at the mode, where it may jump, by both limits.
    """
    x = np.sort(np.asarray(values, dtype=float))
    n, best = len(x), 1.0
    for mode in range(n):
        ranks = [*range(mode + 1), *range(mode, n)]
        rows, limits = [], []

        def add(pairs, limit, rows=rows, limits=limits):
            row = np.zeros(n + 2)
            for column, value in pairs:
                row[column] += value
            rows.append(row)
            limits.append(limit)

        for k, rank in enumerate(ranks):
            most = (rank + 1 if k == mode + 1 else rank) / n
            least = (rank if k == mode else rank + 1) / n
            add([(k, 1), (n + 1, -1)], most)
            add([(k, -1), (n + 1, -1)], -least)
            if k < n:
                add([(k, 1), (k + 1, -1)], 0)
        for k in range(n - 1):
            turn = 1 if k + 2 <= mode else -1 if k > mode else 0
            if turn:
                one, two = np.diff(x[[ranks[k], ranks[k + 1], ranks[k + 2]]])
                slopes = [(k + 1, turn / one), (k, -turn / one)]
                add([*slopes, (k + 2, -turn / two), (k + 1, turn / two)], 0)
        aim = np.eye(n + 2)[n + 1]
        found = linprog(aim, A_ub=np.array(rows), b_ub=limits, bounds=[(0, 1)] * (n + 2))
        best = min(best, found.fun)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_dip_is_the_distance_to_the_nearest_unimodal_distribution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.random(4 + seed)
    two = np.concatenate([rng.normal(0, 0.1, 4), rng.normal(1, 0.1, 2 + seed)])
    for values in (one, two):
        assert dip(values) == pytest.approx(dip_by_definition(values), abs=1e-6)


@pytest.mark.heavy
def test_quantiles_under_uniform_values_are_those_of_the_published_table() -> None:
    # qDiptab of the R package diptest 0.77, after Hartigan and Hartigan 1985, table 1.
    published = {8: (0.1110, 0.1418, 0.1540), 10: (0.0978, 0.1305, 0.1396)}
    for n, quantiles in published.items():
        rng = np.random.default_rng(n)
        drawn = [dip(rng.random(n)) for _ in range(3000)]
        assert np.quantile(drawn, [0.5, 0.9, 0.95]) == pytest.approx(quantiles, rel=0.02)


@pytest.mark.heavy
def test_two_clusters_are_found_and_one_is_not() -> None:
    assert dip_p([0, 0.01, 0.02, 0.03, 1, 1.01, 1.02, 1.04]) < 0.01
    assert dip_p(np.random.default_rng(1).normal(size=8)) > 0.05


def test_equal_values_have_the_least_dip_there_is() -> None:
    assert dip([2.0] * 8) == 1 / 16


def test_three_values_are_too_few() -> None:
    with pytest.raises(ValueError, match="must be at least 4"):
        dip([1, 2, 3])
