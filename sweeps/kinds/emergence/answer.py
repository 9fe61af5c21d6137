"""What a study of emergence says: curves, five tests of every jump, onsets, in words."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.words import counted
from sweeps.emergence.finding import Finding as Tested
from sweeps.emergence.jump import (
    accuracy_is_a_threshold,
    measure_jumps,
    one_curve_of_loss,
    seeds_are_bimodal,
)
from sweeps.emergence.rise import fit_rise
from sweeps.kinds.emergence.curves import Curve
from sweeps.kinds.emergence.forecast import compare, onset_of
from sweeps.study.answer import Finding, Panel, Row, Series

JUMPS = "Is the jump real"
COMPUTE, GAP = "training FLOPs", "% of lawful error"


def answer(curves: Sequence[Curve], registered: dict[str, Any], look: str) -> Finding:
    """Answer a study of emergence from its curves and what was forecast."""
    if not any(curve.points for curve in curves):
        return Finding("No run was asked yet: nothing is known of any ability.")
    laws = [curve for curve in curves if curve.law]
    finding = Finding(_headline(laws), said=_said(curves, look))
    finding.tables["Abilities at the largest budget of each (% of lawful error)"] = [
        _summary(curve) for curve in curves
    ]
    rows = compare(registered, curves)
    if rows:
        about = (
            "registered before any larger budget began"
            if registered.get("registered")
            else "NOT registered: larger budgets had begun"
        )
        finding.tables[f"Onsets, forecast up to {registered['largest']:.3g} FLOPs ({about})"] = rows
    finding.tables[JUMPS] = [row for curve in laws for row in jump_rows(curve)]
    finding.tables["Every budget (% of lawful error)"] = [
        row for curve in curves for row in _budgets(curve)
    ]
    finding.warnings = _warnings(curves)
    finding.panels = [panel for curve in curves for panel in _panels(curve, registered)]
    finding.numbers = {
        "look": look,
        "abilities": len(laws),
        "reached": [curve.name for curve in laws if onset_of(curve).seen],
    }
    return finding


def _headline(laws: Sequence[Curve]) -> str:
    reached = [(onset_of(curve).budget, curve.name) for curve in laws if onset_of(curve).seen]
    largest = max(point.budget for curve in laws for point in curve.points)
    if not reached:
        return f"None of {counted(len(laws), 'law')} is learned up to {largest:.3g} FLOPs."
    named = ", ".join(f"{name} ({budget:.2g})" for budget, name in sorted(reached))
    least = f" by {100 * laws[0].least:g} % or more" if laws[0].least else ""
    return (
        f"{len(reached)} of {counted(len(laws), 'law')} exceed their lawless twin{least} up to "
        f"{largest:.3g} FLOPs, each from the budget named on: {named}."
    )


def _said(curves: Sequence[Curve], look: str) -> list[str]:
    given = "the frames before the splice given clean" if look == "given" else "whole clips"
    said = [
        f"An ability is the margin of a run less that of its lawless twin, {given}, with a 95 % "
        "interval over pairs and seeds. The floor is zero. A margin has no ceiling that is known.",
    ]
    if least := max(curve.least for curve in curves):
        said.append(f"An onset needs an interval above zero and {100 * least:g} % or more.")
    for curve in curves:
        onset = onset_of(curve)
        last = curve.points[-1]
        where = f"{100 * last.value:+.3g} % [{100 * last.low:+.3g}, {100 * last.high:+.3g}]"
        if not curve.law:
            kept = last.low <= 0 <= last.high
            told = "holds zero" if kept else "does NOT hold zero"
            said.append(f"{curve.name}, which no law binds, {told} at {last.budget:.3g}: {where}.")
        else:
            said.append(f"{curve.name}: {onset.verdict}; {where} at {last.budget:.3g} FLOPs.")
    return said


def _warnings(curves: Sequence[Curve]) -> list[str]:
    found = []
    if not any(curve.freedom for curve in curves):
        found.append("Every point has one seed: intervals are of pairs, and seeds may spread more.")
    few = min(len(curve.points) for curve in curves)
    if few < 6:
        found.append(f"{counted(few, 'budget')}: tests of a jump need six.")
    return found


def _summary(curve: Curve) -> Row:
    last = curve.points[-1]
    return {
        "ability": curve.name,
        "budget": last.budget,
        "law - twin": 100 * last.value,
        "low": 100 * last.low,
        "high": 100 * last.high,
        "run": 100 * last.mean("run"),
        "twin": 100 * last.mean("twin"),
        "untrained": 100 * last.mean("untrained"),
        "backwards": 100 * last.mean("reversed"),
        "linear": 100 * last.mean("gaussian"),
        "accuracy": last.mean("accuracy"),
        "seeds_spread": curve.spread if math.isfinite(curve.spread) else None,
        "knee": knee_of(curve),
        "onset": onset_of(curve).verdict,
    }


def knee_of(curve: Curve) -> str:
    """Return the middle of a logistic rise over log compute, where budgets hold it."""
    if len(curve.points) < 5:
        return "needs five budgets"
    x = np.log10(curve.column("budget"))
    rise = fit_rise(x, np.array(curve.column("value")), np.array(curve.column("error")))
    if rise.middle >= x[-1] or rise.middle <= x[0]:
        return "not inside the budgets"
    return f"{10**rise.middle:.2g}"


def jump_rows(curve: Curve) -> list[Row]:
    """Return what the tests of one ability say; one that cannot ask says why.

    The fifth, of a composite, is asked of drawn clips (drawn.py).
    """
    firsts = [point.rows[0] for point in curve.points]
    most = max(curve.points, key=lambda point: point.seeds)
    tests: list[tuple[str, Callable[[], Tested]]] = [
        ("continuous measure", lambda: measure_jumps(
            curve.column("budget"), curve.column("value"), curve.column("error"))),
        ("accuracy", lambda: accuracy_is_a_threshold(
            [row["accuracy"] for row in firsts], [row["effect"] for row in firsts],
            [1.0] * len(firsts), int(firsts[0]["pairs"]))),
        ("seeds", lambda: seeds_are_bimodal([row["learned"] for row in most.rows])),
        ("loss", lambda: one_curve_of_loss(
            [row["loss"] for row in curve.every], [row["learned"] for row in curve.every],
            [curve.error_of(row) for row in curve.every],
            [row["params"] for row in curve.every])),
    ]  # fmt: skip
    rows: list[Row] = []
    for name, test in tests:
        rows.append({"ability": curve.name, "test": name} | told(test))
    return rows


def told(test: Callable[[], Tested]) -> Row:
    """Return a test's numbers and verdict, or why it cannot be asked."""
    try:
        found = test()
    except ValueError as error:
        return {"verdict": f"not asked: {error}"}
    numbers = {"value": found.value, "low": found.low, "high": found.high, "p": found.p}
    row: Row = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    return row | {"unit": found.unit, "verdict": found.verdict}


def _budgets(curve: Curve) -> list[Row]:
    return [
        {
            "ability": curve.name,
            "budget": point.budget,
            "params": point.rows[0]["params"],
            "loss": point.loss,
            "seeds": point.seeds,
            "law - twin": 100 * point.value,
            "low": 100 * point.low,
            "high": 100 * point.high,
            "twin": 100 * point.mean("twin"),
            "untrained": 100 * point.mean("untrained"),
            "accuracy": point.mean("accuracy"),
        }
        for point in curve.points
    ]


def _panels(curve: Curve, registered: dict[str, Any]) -> list[Panel]:
    """Return an ability against compute, with what is known of its onset, and against loss."""
    points, budgets = curve.points, curve.column("budget")
    gap = _series("law - twin", budgets, points)
    kind = "" if curve.law else " (no law)"
    top, bottom = max(100 * p.high for p in points), min(0.0, *(100 * p.low for p in points))
    lines = [
        Series("floor", [budgets[0], budgets[-1]], [0.0, 0.0], line=True, colour=-1),
        Series("twin", budgets, [100 * p.mean("twin") for p in points], line=True, colour=1),
        Series("untrained", budgets, [100 * p.mean("untrained") for p in points],
               line=True, colour=2),
    ]  # fmt: skip
    for said in registered.get("onsets", []):
        own = (said["world"], said["property"]) == (curve.world, curve.prop)
        if own and not said["seen"] and math.isfinite(at := said["budget"] or math.nan):
            lines.append(Series("forecast onset", [at, at], [bottom, top], line=True, colour=3))
    if onset_of(curve).seen:
        at = onset_of(curve).budget
        lines.append(Series("onset", [at, at], [bottom, top], line=True, colour=4))
    groups: dict[int, list[Row]] = {}
    for row in curve.every:
        groups.setdefault(row["params"], []).append(row)
    of_loss = [
        Series(
            f"{params / 1e3:.0f}k parameters",
            [row["loss"] for row in members],
            [100 * row["learned"] for row in members],
            [100 * row["learned_low"] for row in members],
            [100 * row["learned_high"] for row in members],
            colour=number,
        )
        for number, (params, members) in enumerate(sorted(groups.items()))
    ]
    return [
        Panel(f"{curve.name}{kind}", COMPUTE, GAP, [*lines, gap], xlog=True, ylog=False),
        Panel(f"{curve.name}{kind}", "loss on lawful clips", GAP, of_loss, xlog=False, ylog=False),
    ]


def _series(label: str, x: list[float], points: Sequence[Any]) -> Series:
    return Series(
        label, x, [100 * p.value for p in points], [100 * p.low for p in points],
        [100 * p.high for p in points],
    )  # fmt: skip
