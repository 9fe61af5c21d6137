"""Each budget's best point, which is what a law of compute alone is fitted to."""

import numpy as np

from sweeps.fit.forms.base import Array, Form
from sweeps.fit.rows.runs import Run, group_budgets
from sweeps.fit.rows.table import Table, number

# Runs of unlike compute fall within 15 % of one another by chance: without a budget column at least
# so many sizes a budget and this share of the rows in budgets make an isoFLOP table.
MIN_SIZES, MIN_SHARE = 3, 0.9


def at_bests(form: Form, table: Table) -> Table:
    """Return an isoFLOP table as one row a budget, that of its best point, and say so in a note.

    Of form `frontier` and its like; tables of other forms, without params or with one row a budget
    come back as they are. A point is one cluster, or one (params, tokens): it counts by the mean
    over its seeds. A row's FLOPs become those of its budget.
    """
    if form.columns != ("flops",) or form.target != "loss" or "params" not in table.optional:
        return table
    runs = _runs(table)
    budgets = group_budgets(runs)
    sizes = [len({runs[i].params for i in rows.tolist()}) for _, rows in budgets]
    taken = {i for _, rows in budgets for i in rows.tolist()}
    nominal = all(run.budget is not None for run in runs)
    regular = np.median(sizes or [0]) >= MIN_SIZES and len(taken) >= MIN_SHARE * len(runs)
    if max(sizes, default=0) < 2 or not (nominal or regular):
        return table
    chosen, flops, losses, edges = [], [], [], []
    for compute, rows in budgets:
        points: dict[object, list[int]] = {}
        for i in rows.tolist():
            key = runs[i].cluster or (runs[i].params, runs[i].tokens)
            points.setdefault(key, []).append(i)
        best = min(points.values(), key=lambda seeds: _mean(table.target, seeds))
        chosen.append(best[0])
        flops.append(compute)
        losses.append(_mean(table.target, best))
        tried = {runs[i].params for i in rows.tolist()}
        if len(tried) > 1 and runs[best[0]].params in (min(tried), max(tried)):
            edges.append(f"{compute:.3g}")
    alone = [i for i in range(len(runs)) if i not in taken]
    return Table(
        columns={"flops": np.array(flops)},
        target=np.array(losses),
        names=[table.names[i] for i in chosen],
        clusters=list(range(len(chosen))),
        excluded=table.excluded
        + [{"name": table.names[i], "reason": "alone at its compute"} for i in alone],
        optional={},
        lines=[table.lines[i] for i in chosen],
        notes=[*table.notes, _note(form, len(taken), len(chosen), edges)],
    )


def _note(form: Form, num_runs: int, num_budgets: int, edges: list[str]) -> str:
    said = (
        f"form={form.name} is of best losses: {num_runs} runs are taken as the best points of "
        f"{num_budgets} budgets"
    )
    if not edges:
        return said + "."
    return (
        f"{said}. At {', '.join(edges)} FLOPs the best size is at an end of those tried: another "
        "may be better."
    )


def _runs(table: Table) -> list[Run]:
    """Return the rows as runs; tokens are 0 where the table has none."""

    def cell(column: str, i: int) -> float | None:
        text = table.optional.get(column, [""] * len(table.names))[i]
        return number({column: text}, column, table.lines[i]) if text else None

    return [
        Run(
            name=name,
            params=cell("params", i) or 0.0,
            tokens=cell("tokens", i) or 0.0,
            flops=float(table.columns["flops"][i]),
            loss=float(table.target[i]),
            cluster=table.optional.get("cluster", [""] * len(table.names))[i] or None,
            budget=cell("budget", i),
        )
        for i, name in enumerate(table.names)
    ]


def _mean(target: Array, rows: list[int]) -> float:
    return float(np.mean(target[rows]))
