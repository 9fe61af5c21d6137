"""One isoFLOP law for each arm: minima over sizes by budget, and how N* grows with compute.

Losses of arms are those of their own clips and cannot be compared; where the minima lie, and how
they move with compute, can. Exponents of two arms differ where the interval of their difference,
over redraws of all losses with the noise, leaves out zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.minima.isoflop import IsoflopMinimum, isoflop_minima, slope_of
from sweeps.fit.trust.bootstrap import percentile_interval
from sweeps.kinds.points.noise import Spread
from sweeps.study.answer import Finding, Panel, Row, Series, grouped, included

MIN_BUDGETS = 3  # two minima make a line that nothing can contradict


@dataclass(frozen=True)
class ArmLaw:
    """One arm's minima, draws of log N* (budgets, resamples), and the exponent with its draws."""

    name: str
    minima: list[IsoflopMinimum]
    draws: np.ndarray
    exponent: float
    exponent_draws: np.ndarray
    clip_tokens: float

    @property
    def interior(self) -> list[int]:
        """Numbers of the budgets that have a minimum."""
        return [i for i, m in enumerate(self.minima) if m.interior]


def arm_law(
    name: str, rows: Sequence[Row], noise: float, level: float, resamples: int, seed: int
) -> ArmLaw:
    """Fit one arm's minima and their line."""
    tables, tokens, params = [], [], []
    for budget, group in sorted(grouped(rows, "length").items()):
        tables.append(
            (budget, np.array([float(r["params"]) for r in group]),
             np.array([r["loss"] for r in group]))
        )  # fmt: skip
    for row in rows:
        params.append(math.log(row["params"]))
        tokens.append(math.log(row["flops"] / row["tokens"]))
    order = np.argsort(params)
    x, y = np.array(params)[order], np.array(tokens)[order]

    def cost(wanted: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(np.log(wanted), x, y))

    minima, draws = isoflop_minima(tables, noise, cost, level, resamples, seed)
    kept = [i for i, m in enumerate(minima) if m.interior]
    exponent, found = math.nan, np.full(resamples, np.nan)
    if len(kept) >= 2:
        budgets = np.array([minima[i].budget for i in kept])
        sizes = np.log([[minima[i].params or 1.0] for i in kept])
        exponent = float(slope_of(budgets, sizes)[0])
        whole = np.isfinite(draws[kept]).all(axis=0)
        found[whole] = slope_of(budgets, draws[kept][:, whole])
    clip = float(np.mean([r["clip_tokens"] for r in rows]))
    return ArmLaw(name, minima, draws, exponent, found, clip)


def resolution(rows: Sequence[Row], spread: Spread | None, level: float, resamples: int) -> Finding:
    """Answer whether the isoFLOP law changes from arm to arm."""
    kept = included(rows)
    noise = 0.0 if spread is None else spread.relative
    laws = [
        arm_law(arm, group, noise, level, resamples, number)
        for number, (arm, group) in enumerate(grouped(kept, "arm").items())
    ]
    if not laws:
        return Finding("No run finished.")
    finding = Finding(
        answer="",
        tables={
            "Exponents": [_exponent_row(law, level) for law in laws],
            "Minima": [_minimum_row(law, m) for law in laws for m in law.minima],
        },
        panels=_panels(laws, kept, level),
    )
    finding.warnings = _warnings(laws, spread)
    usable = [law for law in laws if len(law.interior) >= 2]
    finding.numbers = {
        law.name: {"exponent": law.exponent,
                   "interval": list(percentile_interval(law.exponent_draws, level))}
        for law in usable
    }  # fmt: skip
    differing, said = _compare(usable, level)
    finding.said = said + _levels(laws, level)
    if len(usable) < 2:
        finding.answer = (
            f"{len(usable)} of {len(laws)} arms have interior minima at two budgets or more: the "
            "exponents cannot be compared."
        )
    else:
        values = ", ".join(f"{law.name} C^{law.exponent:.2f}" for law in usable)
        verdict = (
            "differ between " + " and ".join(differing)
            if differing
            else "show no difference that these runs resolve"
        )
        finding.answer = f"The exponents of N* ({values}) {verdict}."
    return finding


def _compare(laws: Sequence[ArmLaw], level: float) -> tuple[list[str], list[str]]:
    """Return the pairs whose exponents differ, and a sentence for each pair."""
    differing, said = [], []
    for number, one in enumerate(laws):
        for other in laws[number + 1 :]:
            low, high = percentile_interval(one.exponent_draws - other.exponent_draws, level)
            said.append(
                f"Exponent of {one.name} minus {other.name}: "
                f"{one.exponent - other.exponent:+.2f} ({100 * level:.0f} % interval {low:+.2f} "
                f"to {high:+.2f})."
            )
            if low > 0 or high < 0:
                differing.append(f"{one.name} and {other.name}")
    return differing, said


def _levels(laws: Sequence[ArmLaw], level: float) -> list[str]:
    """Return how the best sizes of two arms differ at the budgets that both have."""
    said = []
    for number, one in enumerate(laws):
        for other in laws[number + 1 :]:
            both = [i for i in one.interior if i in other.interior]
            if not both:
                continue
            logs = (one.draws[both] - other.draws[both]).mean(axis=0)
            low, high = np.exp(percentile_interval(logs, level))
            middle = math.exp(
                float(np.mean([math.log((one.minima[i].params or 1) / (other.minima[i].params or 1))
                               for i in both]))
            )  # fmt: skip
            resolved = "" if low > 1 or high < 1 else "; not resolved"
            said.append(
                f"At equal compute the best size of {one.name} is {middle:.2f} times that of "
                f"{other.name} ({100 * level:.0f} % interval {low:.2f} to {high:.2f}, "
                f"{len(both)} budgets{resolved})."
            )
    return said


def _warnings(laws: Sequence[ArmLaw], spread: Spread | None) -> list[str]:
    found = [
        f"{law.name}: the minimum at {m.budget:.3g} FLOPs is refused: {m.reason}."
        for law in laws
        for m in law.minima
        if not m.interior
    ]
    found += [
        f"{law.name}: {len(law.interior)} interior minima; {MIN_BUDGETS} are needed to see whether "
        "they lie on a line."
        for law in laws
        if len(law.interior) < MIN_BUDGETS
    ]
    if spread is None:
        found.append(
            "No point was run with two seeds: intervals hold only what the parabolas miss. "
            "Set repeat.seeds=[1]."
        )
    return found


def _exponent_row(law: ArmLaw, level: float) -> Row:
    low, high = percentile_interval(law.exponent_draws, level)
    return {
        "arm": law.name, "tokens_per_clip": law.clip_tokens, "budgets": len(law.minima),
        "interior": len(law.interior), "exponent": law.exponent, "low": low, "high": high,
    }  # fmt: skip


def _minimum_row(law: ArmLaw, minimum: IsoflopMinimum) -> Row:
    low, high = minimum.interval or (math.nan, math.nan)
    return {
        "arm": law.name, "flops": minimum.budget, "params": minimum.params, "low": low,
        "high": high, "tokens": minimum.tokens, "loss": minimum.loss,
        "reason": minimum.reason or "",
    }  # fmt: skip


def _panels(laws: Sequence[ArmLaw], rows: Sequence[Row], level: float) -> list[Panel]:
    lines, panels = [], []
    for number, law in enumerate(laws):
        kept = [law.minima[i] for i in law.interior]
        bounds = [m.interval or (math.nan, math.nan) for m in kept]
        lines.append(
            Series(law.name, [m.budget for m in kept], [m.params or math.nan for m in kept],
                   [low for low, _ in bounds], [high for _, high in bounds], colour=number)
        )  # fmt: skip
    panels.append(Panel("Best size against compute", "FLOPs", "N*", lines))
    for number, law in enumerate(laws):
        mine = [r for r in rows if r["arm"] == law.name]
        series = []
        for budget, group in sorted(grouped(mine, "length").items()):
            group = sorted(group, key=lambda r: r["params"])
            x, y = [r["params"] for r in group], [r["loss"] for r in group]
            series.append(Series("", x, y, line=True, colour=number))
            series.append(Series("" if series[1:] else law.name, x, y, colour=number))
            del budget
        panels.append(Panel(f"IsoFLOP curves: {law.name}", "params", "validation loss", series))
    del level
    return panels
