"""The best learning rate and batch of each (params, tokens), from a table of runs over both.

Around the best run of a point a quadratic of log loss in (log lr, log batch) is fitted to its
neighbours; its vertex is the optimum. A point whose best run is at an edge of the learning rates or
batches tried has no optimum to speak of and is left out, by name.
"""

from dataclasses import dataclass

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form
from sweeps.fit.rows.table import Table, number
from sweeps.fit.words import counted

NEIGHBOUR = np.log(4.0)  # a factor 4 either side of the best: two or three steps of usual grids
KNOBS = ("lr", "batch")


@dataclass(frozen=True)
class Optima:
    """Hold each point's optimum, `(P,)` each, and the points left out with the reason."""

    params: Array
    tokens: Array
    knobs: dict[str, Array]
    loss: Array  # the least measured
    refused: list[dict[str, str]]


def recipe_optima(columns: Columns, loss: Array) -> Optima:
    """Return the optima of a table with params, tokens and any of lr and batch."""
    knobs = [k for k in KNOBS if k in columns]
    points = np.stack([columns["params"], columns["tokens"]], axis=1)
    found: list[tuple[float, ...]] = []
    refused = []
    for params, tokens in np.unique(points, axis=0):
        rows = np.flatnonzero((points == (params, tokens)).all(axis=1) & np.isfinite(loss))
        if not len(rows):
            continue
        logs = np.stack([np.log(columns[k][rows]) for k in knobs], axis=1)
        best = logs[int(np.argmin(loss[rows]))]
        edges = [
            k
            for k, value, all_values in zip(knobs, best, logs.T, strict=True)
            if value in (all_values.min(), all_values.max())
        ]
        if edges:
            name = f"params={params:.4g} tokens={tokens:.4g}"
            why = f"the best {' and '.join(edges)} is at an edge of those tried"
            refused.append({"name": name, "reason": why})
            continue
        vertex = _vertex(logs, np.log(loss[rows]), best)
        found.append((float(params), float(tokens), *np.exp(vertex), float(loss[rows].min())))
    table = np.array(found).reshape(len(found), 3 + len(knobs)).T
    chosen = dict(zip(knobs, table[2:-1], strict=True))
    return Optima(table[0], table[1], chosen, table[-1], refused)


def known(form: Form, table: Table) -> Table:
    """Return the rows whose target is given; the others are excluded by name."""
    there = np.isfinite(table.target)
    return table.without([None if given else f"no {form.target} is given" for given in there])


def runs_over_knobs(table: Table) -> dict[str, Array] | None:
    """Return params, tokens, loss and the knobs of a table with several runs a (params, tokens).

    None of a table without a loss, or with one row for each (params, tokens).
    """
    needed = ("params", "tokens", "loss")
    if any(n not in table.optional for n in needed):
        return None
    names = [*needed, *(k for k in KNOBS if k in table.optional)]
    columns = {
        n: np.array(
            [number({n: t}, n, i) for i, t in zip(table.lines, table.optional[n], strict=True)]
        )
        for n in names
    }
    points = np.stack([columns["params"], columns["tokens"]], axis=1)
    return None if len(np.unique(points, axis=0)) == len(points) else columns


def at_optima(form: Form, table: Table) -> Table:
    """Return a table of runs over lr or batch as one row for each point: its optimum.

    Tables without a loss, or with one row for each (params, tokens), come back as they are.
    """
    if form.target not in KNOBS:
        return table
    table = known(form, table)
    columns = runs_over_knobs(table)
    if columns is None:
        return table
    loss = columns.pop("loss")
    optima = recipe_optima(columns, loss)
    found = {"params": optima.params, "tokens": optima.tokens} | optima.knobs
    pairs = zip(optima.params, optima.tokens, strict=True)
    return Table(
        columns={c: found[c] for c in form.columns},
        target=found[form.target],
        names=[f"params={n:.4g} tokens={d:.4g}" for n, d in pairs],
        clusters=list(range(len(optima.params))),
        excluded=table.excluded + optima.refused,
        optional={},
        lines=[],
        notes=[
            *table.notes,
            f"Optima of {form.target} over {' and '.join(optima.knobs)}: {len(optima.params)} from "
            f"{counted(len(loss), 'run')}; refused: {counted(len(optima.refused), 'point')}.",
        ],
    )


def _vertex(logs: Array, log_loss: Array, best: Array) -> Array:
    """Return the quadratic's minimum near `best`, or `best` where it has none there."""
    near = (np.abs(logs - best) <= NEIGHBOUR).all(axis=1)
    x, y = logs[near] - best, log_loss[near]
    num = x.shape[1]
    cross = [x[:, i] * x[:, j] for i in range(num) for j in range(i, num)]
    design = np.stack([np.ones(len(x)), *x.T, *cross], axis=1)
    if len(x) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return best
    fitted = np.linalg.lstsq(design, y, rcond=None)[0]
    bend = np.zeros((num, num))
    bend[np.triu_indices(num)] = fitted[1 + num :]
    bend = bend + bend.T
    if np.linalg.eigvalsh(bend)[0] <= 0:
        return best
    move = -np.linalg.solve(bend, fitted[1 : 1 + num])
    return best + move if np.abs(move).max() <= NEIGHBOUR else best
