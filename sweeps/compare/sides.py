"""One side of a comparison: a table of runs or a single run as a curve of loss over compute.

    L*(C) = min over N of L_hat(N, D = C / cost(N))     of a law of (params, tokens), or
    L*(C) = A / C^alpha (+ E)                            through the best run of each budget, or
    L(C)  log-log between the validation losses          of a single run's curve.csv

each with draws: bootstrap refits of a table, noise of validation of a single run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit.beside import Beside, beside
from sweeps.fit.entries import residual_scatter
from sweeps.fit.forecast.choice import AUTO, BOTH, choose
from sweeps.fit.forecast.ladder import Ladder
from sweeps.fit.forecast.nearby import nearby_losses
from sweeps.fit.forecast.rolling import NEARBY
from sweeps.fit.forms.base import Array, Columns, Rows
from sweeps.fit.forms.catalogue import CHINCHILLA, FRONTIER, PURE_FRONTIER, loss_form_of
from sweeps.fit.general import without_diverged
from sweeps.fit.law import runs_of
from sweeps.fit.minima.envelope import envelope
from sweeps.fit.minima.frontier import Placed, compute_optimal
from sweeps.fit.optimum.solve import fit_form, fit_runs
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.check import excluded_reasons
from sweeps.fit.rows.files import KINDS
from sweeps.fit.rows.read import Source, read_rows, title_of
from sweeps.fit.rows.runs import (
    Run,
    clusters_of,
    columns_of,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
)
from sweeps.fit.rows.table import Table, number, read_table
from sweeps.fit.rows.wandb_runs import SCHEME
from sweeps.fit.trust.bootstrap import bootstrap_fit, prediction_draws
from sweeps.fit.trust.identified import warn_fit

GRID = 33  # points of log C that a frontier is known at: interpolation costs .1 % of compute
REACH = 4.0  # and how far beyond its runs, for draws that shift; nothing there is reported
MIN_SIZES = 3  # values of params and of tokens that a law of both needs (bootstrap.least_values)
MIN_POINTS = 3  # budgets that a frontier without a law needs
FLOOR_POINTS = 6  # and with a floor E


@dataclass(frozen=True)
class Side:
    """A curve of loss over compute with its draws.

    grid: log FLOPs `(G,)`. curve: log loss there `(G,)`; draws: the same of each draw `(K, G)`.
    low, high: FLOPs that its runs span. flops, loss: the points shown. noise: relative, of one run
    (None where unknown). runs: how many points bear it. told_by: of a law, its form or the nearest
    budgets.
    """

    name: str
    method: str
    grid: Array
    curve: Array
    draws: Array
    low: float
    high: float
    flops: Array
    loss: Array
    noise: float | None
    runs: int
    notes: list[str]
    told_by: str = ""


def locate(text: str) -> Path:
    """Return the runs.csv of a study's folder, a table, or the folder of a single run.

    Raises:
        ValueError: it is none of them.
    """
    path = Path(text)
    if path.is_file() and path.suffix.lower() in KINDS and path.name != "curve.csv":
        return path
    if (path / "runs.csv").is_file():
        return path / "runs.csv"
    if (path / "curve.csv").is_file():
        return path
    if path.name == "curve.csv" and path.is_file():
        return path.parent
    if path.is_dir():
        raise ValueError(
            f"{text}: holds neither runs.csv (a study that has been fitted) nor curve.csv (a run "
            "that has finished). Give such a folder, or a table."
        )
    if path.is_file():
        raise ValueError(f"{text}: must be a table ({', '.join(KINDS)}). Export it as one of them.")
    raise ValueError(
        f"{text}: does not exist. Give a study's folder, a table of runs ({', '.join(KINDS)}), or "
        "a run's folder."
    )


def located(source: Source) -> Source:
    """Return a table as it is, or the `Path` that a text leads to."""
    if isinstance(source, str) and not source.startswith(SCHEME):
        return locate(source)
    return source


def beside_of(source: Source) -> Beside:
    """Return how the study fits the table that lies in its folder; nothing of any other table."""
    return beside(source) if isinstance(source, Path) else Beside()


def name_of(source: Source) -> str:
    """Return what a table is called: its study, its file, or its type."""
    if not isinstance(source, Path):
        return title_of(source)
    return source.parent.name if source.name == "runs.csv" else source.stem


def names_apart(names: Sequence[str]) -> list[str]:
    """Return the names of A and B, which say so where they are one."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=True)]


def read_table_side(
    source: Source,
    mapping: Mapping[str, str],
    method: str,
    options: FitOptions,
    form: str,
    name: str = "",
) -> Side:
    """Return the frontier of a table of runs, by `method` law or frontier.

    form: of the law; `auto` chooses it, and what tells the least loss, as `fit_law` does. name: of
    the side, that of the table where empty.

    Raises:
        ValueError: the table cannot make one.
    """
    name = name or name_of(source)
    if method == "law":
        return _law_side(name, source, mapping, options, form)
    return _frontier_side(name, source, mapping, options)


def can_make_law(source: Source, mapping: Mapping[str, str]) -> bool:
    """Say whether a table has the columns and values that a law of (params, tokens) needs.

    Bad cells raise ValueError here already.
    """
    have = set(read_rows(source)[0][0])
    theirs = {mapping.get(c, c) for c in ("params", "tokens", "flops")}
    if mapping.get("params", "params") not in have or len(theirs & have) < 2:
        return False
    runs = usable_runs(source, mapping)[0]
    columns, _ = columns_of(runs)
    points = np.unique(np.stack([columns["params"], columns["tokens"]], axis=1), axis=0)
    enough = all(len(np.unique(columns[c])) >= MIN_SIZES for c in ("params", "tokens"))
    return enough and len(points) > len(CHINCHILLA.parameters)


def usable_runs(source: Source, mapping: Mapping[str, str]) -> tuple[list[Run], list[str]]:
    """Return the usable runs of a table, and what to say of the others."""
    used = {"params": "params", "tokens": "tokens", "loss": "loss"} | dict(mapping)
    return runs_and_notes(read_table(source, CHINCHILLA, used))


def runs_and_notes(table: Table) -> tuple[list[Run], list[str]]:
    """Return the rows of a table that can be fitted as runs, and what to say of the others."""
    used = table.without(excluded_reasons(table.columns, table.target))
    left = [f"Run {row['name']} is left out: {row['reason']}." for row in used.excluded]
    return runs_of(used), [*used.notes, *left]


def _law_side(
    name: str, source: Source, mapping: Mapping[str, str], options: FitOptions, form: str
) -> Side:
    runs, left_out = usable_runs(source, mapping)
    cost = interpolated_flops_per_token(runs)
    choice = None
    if form == AUTO:
        with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
            choice = choose(runs, group_budgets(runs), cost, options)
    fit = fit_runs(loss_form_of(choice.form if choice else form), runs, options)
    boot = bootstrap_fit(fit, clusters_of(runs), options.resamples, options.level, options.seed)
    if not len(boot.theta):
        raise ValueError(
            f"table={name}: no resample of its {len(runs)} runs could be fitted. Add runs."
        )
    said = f"its law is {fit.form.equation.rpartition(' (')[0]}."
    said += f" Chosen: {choice.reason}." if choice else ""
    notes = [f"{name}: {note}" for note in [said, *left_out, *warn_fit(fit, boot)]]
    theta = np.concatenate([fit.theta[None], boot.theta])
    noise = max(noise_floor(runs) or 0.0, residual_scatter(fit))
    side = side_of_law(name, fit, theta, runs, noise, notes)
    if choice is None or choice.by not in (NEARBY, BOTH) or choice.forecaster is None:
        return side
    known, with_law = choice.forecaster.ladder.trusted(), choice.by == BOTH
    told = (
        "and that law tell its least losses" if with_law else "tell its least losses, not that law"
    )
    return replace(
        by_nearest_budgets(side, known, options, with_law),
        notes=[*side.notes, f"{name}: the nearest budgets {told}."],
    )


def side_of_law(
    name: str, law: Placed, theta: Array, runs: Sequence[Run], noise: float, notes: list[str]
) -> Side:
    """Return the frontier of a law at each theta `(1 + K, P)`, the optimum first, over its runs."""
    cost = interpolated_flops_per_token(runs)
    columns, loss = columns_of(runs)
    low, high = float(columns["flops"].min()), float(columns["flops"].max())
    grid = _grid(low, high)
    every = np.stack(
        [np.log(compute_optimal(law, theta, float(np.exp(c)), cost)[2]) for c in grid], axis=1
    )
    return Side(
        name, "law", grid, every[0], every[1:], low, high, columns["flops"], loss, noise, len(runs),
        notes, law.form.name,
    )  # fmt: skip


def _grid(low: float, high: float) -> Array:
    return np.linspace(np.log(low / REACH), np.log(high * REACH), GRID)


def by_nearest_budgets(
    side: Side, ladder: Ladder, options: FitOptions, with_law: bool = False
) -> Side:
    """Return a side whose least losses are those of the nearest budgets, redrawn within error.

    with_law: the law of the side is one more member of their median, as in a forecast.
    """
    deviates = np.random.default_rng(options.seed).standard_normal((options.resamples, len(ladder)))
    losses = np.vstack([ladder.loss, ladder.loss * np.exp(ladder.error * deviates)])
    own = np.exp(np.vstack([side.curve, side.draws]))[: len(losses)]  # (1 + K, G)
    every = []
    for place, c in enumerate(side.grid):
        members = nearby_losses(ladder.compute, losses, float(np.exp(c)))
        if with_law:
            members = np.column_stack([members[: len(own)], own[:, place]])
        every.append(np.log(np.median(members, axis=1)))
    curves = np.stack(every, axis=1)
    told_by = f"{NEARBY} and {side.told_by}" if with_law else NEARBY
    return replace(side, curve=curves[0], draws=curves[1:], told_by=told_by)


def _frontier_side(
    name: str, source: Source, mapping: Mapping[str, str], options: FitOptions
) -> Side:
    """Fit L = A / C^alpha (+ E) to the best run of each budget, or to the lower envelope."""
    used = {"flops": "flops", "loss": "loss"} | dict(mapping)
    table = without_diverged(read_table(source, FRONTIER, used))
    flops, loss = table.columns["flops"], table.target
    best = _best_rows(table)
    if len(best) < MIN_POINTS:
        raise ValueError(
            f"table={name}: {len(best)} of its {len(loss)} runs are best at their compute; a "
            f"frontier needs {MIN_POINTS}. Add budgets."
        )
    columns: Columns = {"flops": flops[best]}
    form = FRONTIER if len(best) >= FLOOR_POINTS else PURE_FRONTIER
    fit = fit_form(form, columns, loss[best], options)
    boot = bootstrap_fit(fit, range(len(best)), options.resamples, options.level, options.seed)
    low, high = float(flops[best].min()), float(flops[best].max())
    grid = _grid(low, high)
    at: Columns = {"flops": np.exp(grid)}
    noise = max([residual_scatter(fit), *_stated_noise(table)])
    notes = [
        *table.notes,
        *(f"Run {e['name']} is left out: {e['reason']}." for e in table.excluded),
    ]
    notes.append(
        f"{name}: {form.equation.partition(' (')[0]} through the best run of {len(best)} budgets; "
        "how far sizes were tuned is not in its interval."
    )
    return Side(
        name, "frontier", grid, np.log(fit.predict(at)), np.log(prediction_draws(fit, boot, at)),
        low, high, flops, loss, noise, len(best), notes,
    )  # fmt: skip


def _best_rows(table: Table) -> Rows:
    """Return the rows of each budget's best run, or those of the lower envelope."""
    flops, loss = table.columns["flops"], table.target
    runs = [Run(n, 1.0, 1.0, c, y) for n, c, y in zip(table.names, flops, loss, strict=True)]
    budgets = group_budgets(runs)
    if len({i for _, g in budgets for i in g}) < len(runs):
        return envelope(flops, loss)
    return np.array([g[np.argmin(loss[g])] for _, g in budgets], dtype=int)


def _stated_noise(table: Table) -> list[float]:
    """Return the median of the runs' own relative noise, where a row states it."""
    cells = table.optional.get("loss_noise", [])
    stated = [
        number({"loss_noise": text}, "loss_noise", line) / y
        for text, line, y in zip(cells, table.lines, table.target, strict=False)
        if text
    ]
    return [float(np.median(stated))] if stated else []


def read_run_side(folder: Path, draws: int, seed: int, name: str = "") -> Side:
    """Return a single run's validation losses over its compute, from curve.csv.

    name: of the side, that of the folder where empty.

    Raises:
        ValueError: it holds fewer than two validation losses.
    """
    path = folder / "curve.csv"
    rows, lines = read_rows(path)
    if missing := {"flops", "loss"} - set(rows[0]):
        raise ValueError(f"{path}: has no column {sorted(missing)[0]}. Give a run's curve.csv.")
    points = sorted(
        (number(row, "flops", line), number(row, "loss", line))
        for row, line in zip(rows, lines, strict=True)
        if row["loss"]
    )
    flops, loss = (np.array([p[i] for p in points if np.isfinite(p[1])]) for i in (0, 1))
    if len(flops) < 2 or flops[-1] <= flops[0]:
        raise ValueError(
            f"{path}: holds {len(flops)} validation losses; a curve needs two at different FLOPs. "
            "Train with validation.curve_points=8."
        )
    result = _object(folder / "result.json")
    noise = float(result.get("loss_noise") or 0.0) / float(result.get("loss") or loss[-1])
    least = np.minimum.accumulate(loss)
    grid = np.linspace(np.log(flops[0]), np.log(flops[-1]), 200)
    curve = np.interp(grid, np.log(flops), np.log(least))
    # Validation repeats its clips and its noise, so a run's losses are off by one common factor.
    shift = noise * np.random.default_rng(seed).standard_normal((draws, 1))
    name = name or folder.name
    notes = [] if noise else [f"{name}: the noise of its validation is unknown."]
    return Side(
        name, "curve", grid, curve, curve + shift, float(flops[0]), float(flops[-1]), flops,
        loss, noise or None, 1, notes,
    )  # fmt: skip


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
