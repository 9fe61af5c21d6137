"""The compute multiplier at equal loss, its interval, and when there is none to tell.

    m(L) = C_A(L) / C_B(L)

over the losses that both reach within their runs' compute; above 1, B needs less. The headline is
the geometric mean over that range, its interval from draws of both sides, independent of each
other.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sweeps.compare.sides import Side
from sweeps.fit.entries import plain
from sweeps.fit.forms.base import Array, Interval
from sweeps.fit.trust.bootstrap import percentile_interval

LOSSES = 9  # at which the multiplier is read, evenly in log loss
NOISE_FACTOR = 2.0  # a difference below twice its own noise is not told
RUNAWAY = 1.25  # a frontier beyond its runs' losses by this factor is none of theirs
LOST = 0.2  # share of draws that do not reach the range: beyond it there is no interval


@dataclass(frozen=True)
class Comparison:
    """What is known of A against B.

    factor: how much more compute A needs than B at equal loss; None where refused, with `refusal`.
    points: the multiplier at single losses. loss_range: common to both. difference: mean of
    log(L_A / L_B) at equal compute; noise: of that difference, 1 standard deviation, from the noise
    of single runs over the runs at hand. trend: factor at the low loss over that at the high one.
    validation: what is known of the data that both were validated on. shared: of recipes fitted
    together, how far the runs let them share (scaled, floors, apart), by `tests`.
    """

    a: str
    b: str
    method: str
    factor: float | None
    interval: Interval | None
    level: float
    refusal: str | None
    verdict: str
    loss_range: Interval | None
    points: list[dict[str, Any]]
    difference: float | None
    noise: float | None
    noise_as_compute: float | None
    trend: float | None
    trend_interval: Interval | None
    notes: list[str]
    validation: str = ""
    shared: str = ""
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = plain(asdict(self))
        assert isinstance(found, dict)
        return found


def compare_sides(a: Side, b: Side, level: float, *, decided: bool = False) -> Comparison:
    """Compare two sides; what cannot be told is refused in words.

    decided: that they differ is known, so an interval of the mean that holds 1 refuses nothing.
    """
    notes = [*a.notes, *b.notes]
    low, high = common_losses(a, b)
    reason = _runaway(a) or _runaway(b) or ("" if low < high else _apart(a, b))
    if reason:
        return Comparison(
            a.name, b.name, a.method, None, None, level, reason, f"Refused: {reason}", None, [],
            None, None, None, None, None, notes,
        )  # fmt: skip
    losses = np.linspace(np.log(low), np.log(high), LOSSES)
    log_a, log_b = (invert(s.grid, s.curve[None], losses)[0] for s in (a, b))
    log_m = log_a - log_b
    draws = _draws(a, b, losses)
    whole = draws[np.isfinite(draws).all(axis=1)]
    factor = float(np.exp(log_m.mean()))
    interval = percentile_interval(np.exp(whole.mean(axis=1)), level)
    lost = 1 - len(whole) / len(draws)
    slope = (losses[-1] - losses[0]) / (log_b[0] - log_b[-1])  # d log L / d log(1 / C)
    difference = float(log_m.mean() * slope)
    noise = _noise(a, b, low, high)
    refusal = _unreached(lost)
    if not refusal and not decided:
        refusal = _undecided(interval, difference, noise, level, a, b)
    trend_draws = np.exp(whole[:, 0] - whole[:, -1])
    points = [
        {
            "loss": float(np.exp(losses[i])), "flops_a": float(np.exp(log_a[i])),
            "flops_b": float(np.exp(log_b[i])), "factor": float(np.exp(log_m[i])),
            "interval": percentile_interval(np.exp(draws[:, i]), level),
        }
        for i in range(LOSSES)
    ]  # fmt: skip
    trend, spread = float(np.exp(log_m[0] - log_m[-1])), percentile_interval(trend_draws, level)
    told = None if refusal else factor
    return Comparison(
        a.name, b.name, a.method, told, interval, level, refusal,
        _verdict(a, b, factor, interval, refusal, trend, spread, level), (low, high), points,
        difference, noise, float(np.exp(NOISE_FACTOR * noise / slope)) if noise else None, trend,
        spread, notes,
    )  # fmt: skip


def common_losses(a: Side, b: Side) -> Interval:
    """Return the lowest and the highest loss that both sides reach within their runs' compute."""
    ends = [np.interp(np.log([s.low, s.high]), s.grid, s.curve) for s in (a, b)]
    return float(np.exp(max(e[1] for e in ends))), float(np.exp(min(e[0] for e in ends)))


def invert(grid: Array, curves: Array, losses: Array) -> Array:
    """Return log C at each log loss for each falling curve `(K, G)`; NaN where never reached."""
    falling = np.minimum.accumulate(curves, axis=1)
    return np.stack(
        [np.interp(losses, row[::-1], grid[::-1], left=np.nan, right=np.nan) for row in falling]
    )


def _draws(a: Side, b: Side, losses: Array) -> Array:
    """Return log m at `losses` for pairs of draws, `(K, M)`."""
    count = min(len(a.draws), len(b.draws))
    one, other = (invert(s.grid, s.draws[:count], losses) for s in (a, b))
    if a.method == "curve":  # a draw may shift an end of a run's curve out of the range
        for found, side in ((one, a), (other, b)):
            np.copyto(found, side.grid[-1], where=np.isnan(found) & (losses < losses.mean()))
            np.copyto(found, side.grid[0], where=np.isnan(found))
    return np.asarray(one - other)


def _noise(a: Side, b: Side, low: float, high: float) -> float | None:
    """Return the noise of log(L_A / L_B): that of a run over the root of the runs in the range."""
    variance = 0.0
    for side in (a, b):
        if side.noise is None:
            return None
        inside = int(np.sum((side.loss >= 0.98 * low) & (side.loss <= 1.1 * high)))
        runs = 1 if side.method == "curve" else max(min(inside, side.runs), 1)
        variance += side.noise**2 / runs
    return float(np.sqrt(variance))


def _runaway(side: Side) -> str:
    """Return why a frontier that leaves the losses of its own runs tells nothing, else nothing."""
    inside = (side.grid >= np.log(side.low)) & (side.grid <= np.log(side.high))
    curve = np.exp(side.curve[inside])
    least, most = float(np.min(side.loss)), float(np.max(side.loss))
    if curve.size and least / RUNAWAY <= curve.min() and curve.max() <= most * RUNAWAY:
        return ""
    other = "method=frontier" if side.method == "law" else "another table"
    return (
        f"the fit of {side.name} runs away: inside the compute of its runs it leaves their losses, "
        f"{least:.4g} to {most:.4g}, by more than a factor {RUNAWAY:g}. Add runs, or give another "
        f"form= or {other}."
    )


def _apart(a: Side, b: Side) -> str:
    reach = [
        f"{s.name} goes from {np.exp(start):.4g} to {np.exp(end):.4g} over {s.low:.3g} to "
        f"{s.high:.3g} FLOPs"
        for s in (a, b)
        for start, end in [np.interp(np.log([s.low, s.high]), s.grid, s.curve)]
    ]
    return (
        f"the losses do not overlap: {reach[0]}, {reach[1]}. A multiplier would extrapolate one of "
        "them; train the worse one longer or the better one shorter."
    )


def _unreached(lost: float) -> str | None:
    if lost <= LOST:
        return None
    return (
        f"{100 * lost:.0f} % of the resamples do not reach the common losses: the runs do not "
        "fix both frontiers. Add budgets."
    )


def _undecided(
    interval: Interval, difference: float, noise: float | None, level: float, a: Side, b: Side
) -> str | None:
    low, high = interval
    if low <= 1 <= high:
        return (
            f"no difference can be told: the {100 * level:g} % interval {low:.3g} to {high:.3g} of "
            "the multiplier holds 1. More runs of both would narrow it."
        )
    if noise is not None and abs(difference) < NOISE_FACTOR * noise:
        runs = "runs" if a.method != "curve" else "run"
        return (
            f"the difference in loss ({100 * difference:+.2g} %) is below {NOISE_FACTOR:g} times "
            f"its noise ({100 * noise:.2g} % with {a.runs} and {b.runs} {runs})."
        )
    return None


def _verdict(
    a: Side, b: Side, factor: float, interval: Interval, refusal: str | None, trend: float,
    spread: Interval, level: float,
) -> str:  # fmt: skip
    if refusal:
        return f"Refused: {refusal}"
    better, worse = (b, a) if factor > 1 else (a, b)
    worth, (low, high) = (factor, interval) if factor > 1 else (1 / factor, _inverse(interval))
    text = (
        f"{better.name} is worth {worth:.3g}x the compute of {worse.name} at equal loss "
        f"({100 * level:g} % interval {low:.3g}x to {high:.3g}x)."
    )
    if not spread[0] <= 1 <= spread[1]:
        grows = (trend > 1) == (factor > 1)
        text += (
            f" That {'grows' if grows else 'shrinks'} with compute, by "
            f"{max(trend, 1 / trend):.3g}x over the common range: do not extrapolate one number."
        )
    return text


def _inverse(interval: Interval) -> Interval:
    return 1 / interval[1], 1 / interval[0]
