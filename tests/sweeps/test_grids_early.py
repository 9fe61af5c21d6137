"""What is left out of an isoFLOP curve, and what never is."""

import numpy as np
import pytest

from sweeps.fit.isoflop import parabola_minimum
from sweeps.grids.early import cannot_matter, waves


def test_sizes_run_from_the_middle_outwards_and_each_once() -> None:
    assert waves(9) == [[2, 3, 4, 5, 6], [1, 7], [0, 8]]
    assert waves(3) == [[0, 1, 2]]
    assert sorted(i for ring in waves(8) for i in ring) == list(range(8))


@pytest.mark.parametrize(
    ("losses", "noise", "left_out"),
    [
        ([None, 1.2, 1.1, 1.0, 1.1, 1.2, None], 0.01, [0, 6]),
        ([None, 1.01, 1.005, 1.0, 1.1, 1.2, None], 0.01, [6]),  # the left side is within noise
        ([None, 1.2, 1.1, 1.0, 1.1, 1.2, None], None, []),  # without a noise floor
        ([None, 1.1, 1.2, 1.0, 1.2, 1.1, None], 0.01, []),  # falls outwards: another valley
        ([None, 1.0, 1.1, 1.2, 1.3, 1.4, None], 0.01, [6]),  # the minimum is at the left edge
        ([None, None, 1.1, 1.0, 1.1, None, None], 0.01, []),  # one worse size is not two
        ([None, 1.2, None, 1.0, 1.1, 1.2, None], 0.01, [6]),  # a run that failed says nothing
    ],
)
def test_a_size_is_left_out_only_beyond_two_worse_ones(losses, noise, left_out) -> None:
    missing = [i for i, loss in enumerate(losses) if loss is None]
    assert [i for i in missing if cannot_matter(i, losses, noise)] == left_out


def test_what_is_left_out_never_held_the_minimum_and_moves_it_less_than_the_noise() -> None:
    """Curves with one valley at a random place, noise as stated."""
    rng, noise, saved = np.random.default_rng(2), 0.005, 0
    x = np.log(1e5) + np.log(1.5) * np.arange(9)
    moved = []
    for _ in range(400):
        centre = x[4] + rng.uniform(-0.8, 0.8)
        true = 0.04 * (x - centre) ** 2
        full = np.exp(true + noise * rng.standard_normal(9))
        losses: list[float | None] = [None] * 9
        for ring in waves(9):
            for i in ring:
                if not cannot_matter(i, losses, noise):
                    losses[i] = float(full[i])
        kept = np.array([i for i, loss in enumerate(losses) if loss is not None])
        saved += 9 - len(kept)
        assert int(np.argmin(true)) in kept
        y = np.log(full)
        less = float(parabola_minimum(x[kept], y[kept])[0][0])
        moved.append(less - centre)
    whole_scatter = noise / (2 * 0.04 * np.sqrt(np.sum((x - x.mean()) ** 2)))
    assert saved / 400 > 1
    assert abs(np.mean(moved)) < whole_scatter
    assert np.std(moved) < 3 * whole_scatter
