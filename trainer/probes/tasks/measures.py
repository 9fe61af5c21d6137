"""What is measured of drawn clips: pure functions of frames and of the body's path.

A frozen clip must fail, whatever it looks like: each measure says what it reads for one. Frames are
those of the picture, F of them; a joint lies before the frame that it is named by.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from trainer.probes.tasks.reading import Array, Frames, Path

MOTION = (0.5, 2.0)  # path lengths over the true one that count as moving
TYPICAL = (0.005, 0.995)  # quantiles of true differences within which a joint is not seen
ALIKE = 0.02  # of a difference: nearer ones are equal
NEAR = 1.0  # pixels from a lawful path
EVEN = 0.5  # of the mean step: how far a step of an even turn may be off


def velocity(path: Path, frames: Bool[np.ndarray, " F"]) -> Float[np.ndarray, " 2"]:
    """Return the least squares velocity over some frames, in pixels a frame.

    v = sum (t - mean t)(x - mean x) / sum (t - mean t)^2 over the frames in which the body is
    there; zero where there are fewer than two, as of a body that stands still.
    """
    times = np.flatnonzero(frames & path.seen)
    if len(times) < 2:
        return np.zeros(2)
    at, centred = path.at[times], times - times.mean()
    found: Array = centred @ (at - at.mean(0)) / np.square(centred).sum()
    return found


def velocity_error(found: Path, true: Path, frames: Bool[np.ndarray, " F"]) -> float:
    """Return |v - v_true| over some frames, in pixels a frame; a frozen clip reads |v_true|."""
    return float(np.linalg.norm(velocity(found, frames) - velocity(true, frames)))


def path_length(path: Path) -> float:
    """Return sum |x(t') - x(t)| over the frames t, t' that follow each other among those seen."""
    return float(np.linalg.norm(np.diff(path.at[path.seen], axis=0), axis=1).sum())


def motion_ratio(found: Path, true: Path) -> float:
    """Return the found path's length over the true one's; a frozen clip reads 0."""
    return path_length(found) / max(path_length(true), 1e-9)


def moves(ratio: float) -> bool:
    """Tell whether a motion ratio lies between a half and two."""
    return MOTION[0] <= ratio <= MOTION[1]


def keeps_identity(found: Path, true: Path) -> bool:
    """Tell whether the last frame shows the true colour, on half to twice the true area."""
    ratio = found.area[-1] / max(true.area[-1], 1e-9)
    return bool(found.ink[-1] == true.ink[-1] and 0.5 <= ratio <= 2)


def state_error(found: Path, true: Path, centre: tuple[float, float]) -> Float[np.ndarray, " F"]:
    """Return |x - x_true| of every frame, in pixels.

    centre: where a body is taken to be that is not there, the middle of the picture.
    """
    at = np.where(found.seen[:, None], found.at, np.array(centre))
    gaps: Array = np.linalg.norm(at - true.at, axis=1)
    return gaps


def differences(frames: Frames, order: int) -> Array:
    """Return every difference of an order in time, root mean squares over pixels (F - order,).

    d_1(i) = |f(i + 1) - f(i)|, d_2(i) = |f(i + 2) - 2 f(i + 1) + f(i)|.
    """
    change = np.diff(frames.astype(np.float64), n=order, axis=0)
    found: Array = np.sqrt(np.square(change).mean((1, 2, 3)))
    return found


def across(frames: Frames, joint: int, order: int) -> Array:
    """Return the differences of an order that reach over a joint: as many as the order.

    joint: the first frame behind it. A frozen joint reads 0 at order 1.
    """
    return differences(frames, order)[max(0, joint - order) : joint]


def wrapped(frames: Frames, order: int) -> Array:
    """Return the differences of an order that reach over a loop's end, which its start follows."""
    joined = np.concatenate([frames[-order:], frames[:order]])
    return differences(joined, order)


def quantile(value: float, reference: Array) -> float:
    """Return the share of a reference that lies below a value; what equals it counts half.

    Values within 2 % of it equal it: a picture of bytes has no finer ones at every place.
    """
    near = np.isclose(reference, value, rtol=ALIKE, atol=1e-6)
    below = (reference < value) & ~near
    return float(below.mean() + near.mean() / 2)


def unseen(joint: Array, reference: Array) -> bool:
    """Tell whether all differences over a joint are as those of true clips.

    Such a difference has a quantile of 0.5 to 99.5 % among the reference. A frozen joint has not.
    """
    return all(TYPICAL[0] <= quantile(one, reference) <= TYPICAL[1] for one in joint.tolist())


def angles(path: Path, centre: tuple[float, float]) -> Array:
    """Return the angle of the body about a centre in every frame, in radians, NaN where unseen."""
    x, y = (path.at - np.array(centre)).T
    found: Array = np.arctan2(y, x)
    return found


def turns(angle: Array) -> Array:
    """Return the angle turned from each frame to the next, from -pi to pi."""
    found: Array = (np.diff(angle) + np.pi) % (2 * np.pi) - np.pi
    return found


def is_monotone(angle: Array, way: float) -> bool:
    """Tell whether a body turns in one way from each frame to the next; one unseen does not.

    way: the sign of the true turn. A turn of half a circle has no way and counts as right.
    """
    step = turns(angle)
    return bool((np.isclose(np.abs(step), np.pi) | (step * way > 0)).all())


def is_loop(angle: Array) -> bool:
    """Tell whether a loop turns round evenly: whole turns, at least one, and no step off by half.

    Angles of P frames, of which the first follows the last. With s the P steps, sum s = 2 pi k,
    |k| >= 1, and |s - 2 pi k / P| <= pi |k| / P. A ping-pong sums to 0, a frozen clip too.
    """
    steps = turns(np.append(angle, angle[0]))
    if np.isnan(steps).any():
        return False
    mean = steps.mean()
    rounds = abs(round(float(steps.sum() / (2 * np.pi))))
    return bool(rounds >= 1 and (np.abs(steps - mean) <= EVEN * abs(mean)).all())


def period_of(angle: Array, periods: tuple[int, ...]) -> int:
    """Return the period, of some, whose turn a frame is nearest to the median turn seen."""
    pace = float(np.nanmedian(np.abs(turns(angle)))) if np.isfinite(turns(angle)).any() else 0.0
    return min(periods, key=lambda period: abs(2 * np.pi / period - pace))


def rim_and_interior(
    found: Frames, true: Frames, made: Bool[np.ndarray, "H W"], kept_beside: int
) -> tuple[float, float]:
    """Return the error beside what is kept and that inside, RMS in grey levels over all frames.

    made: pixels that were made anew. kept_beside: how many pixels from a kept one the rim reaches.
    """
    grown = np.pad(~made, kept_beside)
    rows, columns = made.shape
    reach = range(2 * kept_beside + 1)
    near = np.any([grown[y : y + rows, x : x + columns] for y in reach for x in reach], 0)
    gaps = np.square(found.astype(np.float64) - true).mean((0, 3))

    def root(where: NDArray[np.bool_]) -> float:
        return float(np.sqrt(gaps[where].mean())) if where.any() else 0.0

    return root(made & near), root(made & ~near)
