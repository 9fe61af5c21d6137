"""What drawn clips add to the answer: broken rules, errors of state, the test of a composite."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from sweeps.emergence.finding import Finding as Tested
from sweeps.emergence.jump import composite_is_a_product
from sweeps.kinds.emergence.answer import COMPUTE, JUMPS, told
from sweeps.study.answer import Finding, Panel, Row, Series, grouped

PARTS = ("there", "colour", "place")
BREAKS = ("vanish", "appear", "colour", "place", "size")
TABLE = "Continuations of given frames at each budget's best size (rules broken in 100 frames)"


def add_samples(finding: Finding, rows: Sequence[Row]) -> None:
    """Add tables, panels, sentences and the test of the composite to an answer."""
    best = [row for row in rows if row["best"]]
    finding.tables[TABLE] = []
    for world, of in grouped(best, "world").items():
        by_source = {name: grouped(some, "budget") for name, some in grouped(of, "source").items()}
        budgets = sorted(by_source["run"])
        for budget in budgets:
            for source in by_source:
                finding.tables[TABLE].append(_row(world, source, by_source[source][budget]))
        finding.said.append(_said(world, by_source, budgets[-1]))
        finding.panels += _panels(world, by_source, budgets)
        runs = [by_source["run"][budget] for budget in budgets]
        finding.tables.setdefault(JUMPS, []).append(
            {"ability": f"{world} continued", "test": "composite"} | told(partial(_composite, runs))
        )


def _composite(runs: Sequence[Sequence[Row]]) -> Tested:
    """Test whether all being right is the product of parts; runs: seeds of each budget."""
    return composite_is_a_product(
        [_half(some, "all") for some in runs],
        [[_half(some, part) for part in PARTS] for some in runs],
        int(sum(row["clips"] for row in runs[0]) // 2),
    )


def mean(rows: Sequence[Row], column: str) -> float | None:
    """Return the mean over seeds of a column, None where no clip had it."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else None


def _half(rows: Sequence[Row], part: str) -> float:
    """Return the composite's share of one half of the clips, a part's of the other."""
    halves = [row["halves"] for row in rows]
    return float(np.mean([h["all"] if part == "all" else h["parts"][part] for h in halves]))


def _row(world: str, source: str, rows: Sequence[Row]) -> Row:
    columns = ("breaks", *BREAKS, "away_1", "away_2", "away_3", "away_4", "right_all")
    return {"world": world, "budget": rows[0]["budget"], "source": source, "seeds": len(rows)} | {
        name: mean(rows, name) for name in columns
    }


def _said(world: str, by_source: dict[str, dict[float, list[Row]]], budget: float) -> str:
    breaks = {name: mean(of[budget], "breaks") or 0.0 for name, of in by_source.items()}
    right = {name: mean(of[budget], "right_all") or 0.0 for name, of in by_source.items()}
    floor = min(breaks[name] for name in ("static", "shuffled", "wrong"))
    twin = f", its twin {breaks['twin']:.1f}" if "twin" in breaks else ""
    side = "below" if breaks["run"] < floor else "not below"
    return (
        f"{world}, continuations at {budget:.3g} FLOPs: a run breaks {breaks['run']:.1f} rules in "
        f"100 frames{twin}, the true clip {breaks['true']:.1f}; that is {side} the best floor, "
        f"{floor:.1f}. All is right in {100 * right['run']:.0f} % of its clips."
    )


def _panels(
    world: str, by_source: dict[str, dict[float, list[Row]]], budgets: list[float]
) -> list[Panel]:
    def lines(column: str, names: Sequence[str], factor: float = 1.0) -> list[Series]:
        found = []
        for number, name in enumerate(name for name in names if name in by_source):
            values = [mean(by_source[name][budget], column) for budget in budgets]
            kept = [(b, factor * v) for b, v in zip(budgets, values, strict=True) if v is not None]
            found.append(
                Series(name, [b for b, _ in kept], [v for _, v in kept], line=name != "run",
                       colour=number)
            )  # fmt: skip
        return found

    every = ("run", "twin", "true", "static", "shuffled", "wrong")
    return [
        Panel(f"{world} continued", COMPUTE, "rules broken in 100 frames", lines("breaks", every),
              ylog=False),
        Panel(f"{world} continued", COMPUTE, "pixels away, fourth frame", lines("away_4", every),
              ylog=False),
    ]  # fmt: skip
