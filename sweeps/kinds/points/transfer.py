"""How the best learning rate moves with width, in units of the step of the grid of rates.

Of every width the best rate is the vertex of the parabola of log loss in log rate through the best
rate tried and its two neighbours: wider parabolas lean on the steep side where training breaks
down. Its interval is that of redraws of all losses with the noise of seeds. A width whose best rate
is at an edge has no optimum to speak of. Transfer is claimed only where the interval of the drift
from the narrowest to the widest, over at least a factor 8, lies within one step of the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.trust.bootstrap import percentile_interval
from sweeps.kinds.points.noise import Spread
from sweeps.study.answer import Finding, Panel, Row, Series, grouped, included

MIN_FACTOR = 8.0  # of widths, over which transfer is asked for
DEFAULT_NOISE = 0.005  # of a loss, where no two seeds tell: seeds at 67 steps differ by .5 %


@dataclass(frozen=True)
class Optimum:
    """The best rate of a width: log2 of it, redraws (nan where at an edge), and its loss.

    reason: why there is none, '' where there is.
    """

    width: int
    log2: float
    draws: np.ndarray
    loss: float
    reason: str


def vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Return the minimum near the smallest ``y`` of a curve over rising ``x``; nan at an edge."""
    best = int(np.argmin(y))
    if best in (0, len(x) - 1):
        return math.nan
    curve, slope, _ = np.polyfit(x[best - 1 : best + 2] - x[best], y[best - 1 : best + 2], 2)
    return float(x[best] - slope / (2 * curve)) if curve > 0 else float(x[best])


def optimum_of(
    rows: Sequence[Row], noise: float, resamples: int, rng: np.random.Generator
) -> Optimum:
    """Return the best rate of the runs of one width; seeds of one rate are averaged."""
    by_rate = {lr: [r["loss"] for r in g] for lr, g in sorted(grouped(rows, "lr").items())}
    x = np.log2(list(by_rate))
    y = np.array([np.mean(np.log(losses)) for losses in by_rate.values()])
    spread = noise / np.sqrt([len(losses) for losses in by_rate.values()])
    best = int(np.argmin(y))
    place, reason = vertex(x, y), ""
    if len(x) < 3:
        reason = f"{len(x)} rates: at least 3 are needed"
    elif math.isnan(place):
        reason = f"the best rate, {2 ** x[best]:.3g}, is at an edge of those tried"
    noisy = y + spread * rng.standard_normal((resamples, len(y)))
    draws = (
        np.array([vertex(x, row) for row in noisy]) if len(x) >= 3 else np.full(resamples, np.nan)
    )
    return Optimum(int(rows[0]["width"]), place, draws, float(np.exp(y[best])), reason)


def transfer(
    rows: Sequence[Row], spread: Spread | None, level: float, resamples: int, seed: int = 0
) -> Finding:
    """Answer how far the best rate drifts from the narrowest width to the widest."""
    kept, noise = included(rows), DEFAULT_NOISE if spread is None else spread.relative
    rng = np.random.default_rng(seed)
    widths = {w: list(g) for w, g in sorted(grouped(kept, "width").items())}
    optima = [optimum_of(group, noise, resamples, rng) for group in widths.values()]
    rates = sorted({r["lr"] for r in kept})
    if len(optima) < 2 or len(rates) < 3:
        return Finding("Too few widths or rates finished to say anything about transfer.")
    step = float(np.median(np.diff(np.log2(rates))))
    usable = [o for o in optima if not o.reason]
    finding = Finding(
        answer="", tables={"Best rates": [_row(o, level) for o in optima]},
        panels=_panels(widths, optima, level),
    )  # fmt: skip
    finding.warnings += [f"Width {o.width} is refused: {o.reason}." for o in optima if o.reason]
    if spread is None:
        finding.warnings.append(
            f"No rate was run with two seeds: the noise of a loss is taken as {100 * noise:g} %. "
            "Set repeat.seeds=[1]."
        )
    elif spread.degrees < 4:
        finding.warnings.append(f"The noise rests on {spread.degrees} degrees of freedom.")
    if len(usable) < 2:
        finding.answer = "The best rate lies inside the grid at fewer than two widths: no answer."
        return finding
    _judge(finding, usable, step, level)
    _regret(finding, widths, usable, noise)
    return finding


def _judge(finding: Finding, usable: Sequence[Optimum], step: float, level: float) -> None:
    """Write the answer: the drift in steps, its interval, and what it allows to claim."""
    first, last = usable[0], usable[-1]
    factor = last.width / first.width
    drift = (last.log2 - first.log2) / step
    draws = (last.draws - first.draws) / step
    lost = float(np.mean(~np.isfinite(draws)))
    low, high = percentile_interval(draws, level)
    slope = _slope(usable)
    amount = (
        f"From width {first.width} to {last.width} the best learning rate moves by {drift:+.2f} "
        f"grid steps of a factor {2**step:.3g} ({100 * level:.0f} % interval {low:+.2f} to "
        f"{high:+.2f})"
    )
    if lost > 1 - level:
        verdict = f": unresolved, in {100 * lost:.0f} % of redraws a best rate is at an edge"
    elif factor < MIN_FACTOR:
        verdict = f"; a factor {factor:g} of widths is too short to speak of transfer"
    elif low >= -1 and high <= 1:
        verdict = ": it transfers within one step"
    elif high < -1 or low > 1:
        verdict = ": it does not transfer"
    else:
        verdict = ": whether it transfers within one step is not resolved"
    finding.answer = f"{amount}{verdict}."
    finding.said.append(
        f"Per doubling of width that is {slope / step:+.2f} steps on average over "
        f"{len(usable)} widths; without muP roles theory expects {-1 / step:+.2f} for matrices."
    )
    finding.numbers = {
        "drift_steps": drift, "low": low, "high": high, "step_factor": 2**step, "factor": factor,
        "steps_per_doubling": slope / step, "redraws_at_an_edge": lost,
    }  # fmt: skip


def _slope(usable: Sequence[Optimum]) -> float:
    """Return the change of log2 of the best rate for each doubling of width."""
    x = np.log2([o.width for o in usable])
    return float(np.polyfit(x - x.mean(), [o.log2 for o in usable], 1)[0])


def _regret(
    finding: Finding, widths: dict[int, list[Row]], usable: Sequence[Optimum], noise: float
) -> None:
    """Say what the widest model loses at the narrowest one's best rate, by its own curve."""
    first, last = usable[0], usable[-1]
    by_rate = sorted(grouped(widths[last.width], "lr").items())
    x = np.log2([lr for lr, _ in by_rate])
    y = [float(np.mean(np.log([r["loss"] for r in group]))) for _, group in by_rate]
    there = float(np.interp(first.log2, x, y))
    cost = 100 * (math.exp(there - min(y)) - 1)
    finding.said.append(
        f"Training width {last.width} at width {first.width}'s best rate costs {cost:.2g} % of "
        f"loss over its own best (interpolated); one seed's noise is {100 * noise:.2g} %."
    )
    finding.numbers |= {"regret_percent": cost, "noise": noise}


def _row(optimum: Optimum, level: float) -> Row:
    low, high = percentile_interval(optimum.draws, level)
    return {
        "width": optimum.width,
        "best_lr": 2**optimum.log2 if not optimum.reason else math.nan,
        "low": 2**low, "high": 2**high, "loss": optimum.loss,
        "redraws_at_an_edge_percent": 100 * float(np.mean(~np.isfinite(optimum.draws))),
        "reason": optimum.reason,
    }  # fmt: skip


def _panels(widths: dict[int, list[Row]], optima: Sequence[Optimum], level: float) -> list[Panel]:
    curves, places = [], []
    for number, (width, group) in enumerate(widths.items()):
        by_rate = sorted(grouped(group, "lr").items())
        x = [lr for lr, _ in by_rate]
        means = [math.exp(float(np.mean(np.log([r["loss"] for r in g])))) for _, g in by_rate]
        curves.append(Series("", x, means, line=True, colour=number))
        curves.append(Series(f"width {width}", [r["lr"] for r in group],
                             [r["loss"] for r in group], colour=number))  # fmt: skip
    for number, optimum in enumerate(optima):
        if not optimum.reason:
            low, high = percentile_interval(optimum.draws, level)
            places.append(
                Series("", [optimum.width], [2**optimum.log2], [2**low], [2**high], colour=number)
            )
    return [
        Panel("Loss against learning rate", "learning rate at base width", "validation loss",
              curves),
        Panel("Best rate of each width", "width", "best learning rate", places),
    ]  # fmt: skip
