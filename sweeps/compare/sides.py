"""One side of a comparison: a table of runs or a single run as a curve of loss over compute.

    L*(C) = min over N of L_hat(N, D = C / cost(N))     of a law of (params, tokens), or
    L*(C) = A / C^alpha (+ E)                            through the best run of each budget, or
    L(C)  log-log between the validation losses          of a single run's curve.csv

each with draws: bootstrap refits of a table, noise of validation of a single run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.fit.entries import residual_scatter
from sweeps.fit.forms.base import Array, Columns
from sweeps.fit.forms.catalogue import CHINCHILLA, FRONTIER, PURE_FRONTIER, loss_form_of
from sweeps.fit.general import without_diverged
from sweeps.fit.law import runs_of
from sweeps.fit.minima.envelope import envelope
from sweeps.fit.minima.frontier import compute_optimal
from sweeps.fit.optimum.solve import fit_form, fit_runs
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.check import excluded_reasons
from sweeps.fit.rows.read import read_rows
from sweeps.fit.rows.runs import (
    Run,
    clusters_of,
    columns_of,
    group_budgets,
    interpolated_flops_per_token,
    noise_floor,
)
from sweeps.fit.rows.table import number, read_table
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
    (None where unknown). runs: how many points bear it.
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


def locate(text: str) -> Path:
    """Return the runs.csv of a study's folder, a table, or the folder of a single run.

    Raises:
        ValueError: it is none of them.
    """
    path = Path(text)
    if path.is_file() and path.suffix in (".csv", ".jsonl") and path.name != "curve.csv":
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
            "that has finished). Give such a folder, or a csv."
        )
    raise ValueError(f"{text}: does not exist. Give a study's folder, a csv of runs, or a run's.")


def read_table_side(
    path: Path, mapping: Mapping[str, str], method: str, options: FitOptions, form: str
) -> Side:
    """Return the frontier of a table of runs, by `method` law or frontier.

    form: of the law.

    Raises:
        ValueError: the table cannot make one.
    """
    name = path.parent.name if path.name == "runs.csv" else path.stem
    if method == "law":
        return _law_side(name, path, mapping, options, form)
    return _frontier_side(name, path, mapping, options)


def can_make_law(path: Path, mapping: Mapping[str, str]) -> bool:
    """Say whether a table has the columns and values that a law of (params, tokens) needs.

    Bad cells raise ValueError here already.
    """
    have = set(read_rows(path)[0][0])
    theirs = {mapping.get(c, c) for c in ("params", "tokens", "flops")}
    if mapping.get("params", "params") not in have or len(theirs & have) < 2:
        return False
    runs = _runs(path, mapping)[0]
    columns, _ = columns_of(runs)
    points = np.unique(np.stack([columns["params"], columns["tokens"]], axis=1), axis=0)
    enough = all(len(np.unique(columns[c])) >= MIN_SIZES for c in ("params", "tokens"))
    return enough and len(points) > len(CHINCHILLA.parameters)


def _runs(path: Path, mapping: Mapping[str, str]) -> tuple[list[Run], list[str]]:
    """Return the usable runs of a table, and what to say of the others."""
    used = {"params": "params", "tokens": "tokens", "loss": "loss"} | dict(mapping)
    table = read_table(path, CHINCHILLA, used)
    columns = table.columns
    why = excluded_reasons(columns, table.target)
    notes = [*table.notes]
    notes += [
        f"Run {name} is left out: {reason}."
        for name, reason in zip(table.names, why, strict=True)
        if reason
    ]
    return [r for r, reason in zip(runs_of(table), why, strict=True) if not reason], notes


def _law_side(
    name: str, path: Path, mapping: Mapping[str, str], options: FitOptions, form: str
) -> Side:
    runs, notes = _runs(path, mapping)
    fit = fit_runs(loss_form_of(form), runs, options)
    columns, loss = fit.columns, fit.target
    boot = bootstrap_fit(fit, clusters_of(runs), options.resamples, options.level, options.seed)
    if not len(boot.theta):
        raise ValueError(
            f"table={path}: no resample of its {len(runs)} runs could be fitted. Add runs."
        )
    law = f"its law is {fit.form.equation.partition(' (')[0]}."
    notes = [f"{name}: {note}" for note in [law, *notes, *warn_fit(fit, boot)]]
    cost = interpolated_flops_per_token(runs)
    low, high = float(columns["flops"].min()), float(columns["flops"].max())
    grid = np.linspace(np.log(low / REACH), np.log(high * REACH), GRID)
    theta = np.concatenate([fit.theta[None], boot.theta])
    every = np.stack(
        [np.log(compute_optimal(fit, theta, float(np.exp(c)), cost)[2]) for c in grid], axis=1
    )
    scatter = residual_scatter(fit)
    return Side(
        name, "law", grid, every[0], every[1:], low, high, columns["flops"], loss,
        max(noise_floor(runs) or 0.0, scatter), len(runs), notes,
    )  # fmt: skip


def _frontier_side(name: str, path: Path, mapping: Mapping[str, str], options: FitOptions) -> Side:
    """Fit L = A / C^alpha (+ E) to the best run of each budget, or to the lower envelope."""
    used = {"flops": "flops", "loss": "loss"} | dict(mapping)
    table = without_diverged(read_table(path, FRONTIER, used))
    flops, loss = table.columns["flops"], table.target
    runs = [Run(n, 1.0, 1.0, c, y) for n, c, y in zip(table.names, flops, loss, strict=True)]
    budgets = group_budgets(runs)
    alone = len({i for _, g in budgets for i in g}) < len(runs)
    best = envelope(flops, loss) if alone else np.array([g[np.argmin(loss[g])] for _, g in budgets])
    if len(best) < MIN_POINTS:
        raise ValueError(
            f"table={path}: {len(best)} of its {len(runs)} runs are best at their compute; a "
            f"frontier needs {MIN_POINTS}. Add budgets."
        )
    columns: Columns = {"flops": flops[best]}
    form = FRONTIER if len(best) >= FLOOR_POINTS else PURE_FRONTIER
    fit = fit_form(form, columns, loss[best], options)
    boot = bootstrap_fit(fit, range(len(best)), options.resamples, options.level, options.seed)
    low, high = float(flops[best].min()), float(flops[best].max())
    grid = np.linspace(np.log(low / REACH), np.log(high * REACH), GRID)
    at: Columns = {"flops": np.exp(grid)}
    stated = [
        number({"loss_noise": text}, "loss_noise", line) / y
        for text, line, y in zip(
            table.optional.get("loss_noise", []), table.lines, loss, strict=False
        )
        if text
    ]
    noise = max([residual_scatter(fit), *([float(np.median(stated))] if stated else [])])
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


def read_run_side(folder: Path, draws: int, seed: int) -> Side:
    """Return a single run's validation losses over its compute, from curve.csv.

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
    notes = [] if noise else [f"{folder.name}: the noise of its validation is unknown."]
    return Side(
        folder.name, "curve", grid, curve, curve + shift, float(flops[0]), float(flops[-1]), flops,
        loss, noise or None, 1, notes,
    )  # fmt: skip


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def renamed_apart(a: Side, b: Side) -> tuple[Side, Side]:
    """Return both sides with names that differ."""
    if a.name != b.name:
        return a, b
    return replace(a, name=f"{a.name} (A)"), replace(b, name=f"{b.name} (B)")
