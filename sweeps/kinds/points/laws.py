"""Analyses that fit one of the laws of sweeps/fit to the study's table.

Each fits runs.csv as it lies on disk, so that anyone can refit it with ``kinescale fit``.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.kinds.points.config import Analysis
from sweeps.study.answer import Finding, Panel, Row, Series, grouped, included

WANTED = {"lr": "learning rate", "batch": "batch in tokens"}


def fitted(
    finding: Finding,
    name: str,
    table: Path,
    form: str,
    options: FitOptions,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Fit a form to the table and keep the law; a refusal becomes a warning and None."""
    try:
        law = fit_table(table, form, options, columns=columns)
    except ValueError as error:
        finding.warnings.append(f"No law {form} was fitted: {error}")
        return None
    finding.laws[name] = law
    finding.warnings += [f"{form}: {warning}" for warning in law["warnings"]]
    finding.tables[f"Coefficients of {form}"] = coefficient_rows(law)
    return law


def coefficient_rows(law: dict[str, Any]) -> list[Row]:
    """Return every coefficient with its interval, and whether the rows determine it."""
    found = []
    for name, value in law["coefficients"].items():
        low, high = (law["intervals"] or {}).get(name) or (math.nan, math.nan)
        verdict = (law.get("identified") or {}).get(name) or {"ok": True, "reason": None}
        why = "" if verdict["ok"] else verdict["reason"]
        found.append(
            {"coefficient": name, "value": value, "low": low, "high": high,
             "identified": bool(verdict["ok"]), "reason": why}
        )  # fmt: skip
    return found


def said_of(law: dict[str, Any], name: str) -> str:
    """Return a coefficient with its interval, in words; why it is not known, where it is not."""
    value = law["coefficients"][name]
    low, high = (law["intervals"] or {}).get(name) or (math.nan, math.nan)
    verdict = (law.get("identified") or {}).get(name) or {"ok": True, "reason": None}
    low, high = (math.nan if x is None else x for x in (low, high))
    text = f"{name} = {value:.3g} ({100 * law['level']:.0f} % interval {low:.3g} to {high:.3g})"
    return text if verdict["ok"] else f"{text}, which is not identified"


def power(rows: Sequence[Row], table: Path, options: FitOptions) -> Finding:
    """Loss against parameters at fixed data: L = E + A / N^alpha."""
    kept = sorted(included(rows), key=lambda row: row["params"])
    finding = Finding("No law: too few runs finished.")
    x = {"x": "params"}
    law = fitted(finding, "power", table, "power", options, x) if kept else None
    series = [Series("runs", [r["params"] for r in kept], [r["loss"] for r in kept])]
    if law is not None:
        finding.answer = (
            f"At fixed data the loss falls as {_bare(law['equation']).replace('y', 'L')} with "
            f"{said_of(law, 'alpha')}."
        )
        if "E" in law["coefficients"]:
            finding.said.append(f"The floor is {said_of(law, 'E')}.")
        fit = sorted((r["x"], r["predicted"]) for r in law["residuals"])
        series.insert(0, Series("fit", [x for x, _ in fit], [y for _, y in fit], line=True))
    finding.panels = [Panel("Loss against parameters", "params", "validation loss", series)]
    return finding


def data_constrained(rows: Sequence[Row], table: Path, options: FitOptions) -> Finding:
    """Loss against parameters, tokens and unique tokens (Muennighoff et al. 2023)."""
    kept = included(rows)
    finding = Finding("No law: too few runs finished.")
    law = fitted(finding, "data", table, "data_constrained", options) if kept else None
    if law is not None:
        finding.answer = (
            f"Repeated data are worth new ones with a decay of {said_of(law, 'R_D_star')} repeats."
        )
        if not law["identified"]["R_D_star"]["ok"]:
            finding.said.append(
                "R_D* is not identified: these runs do not bend away from fresh data by more "
                "than they scatter, or they do not reach enough repeats."
            )
    finding.said += _cost_of_repeats(kept)
    finding.panels = [
        Panel("Loss against repeats", "epochs", "validation loss", [
            Series(f"{length:.3g}", [r["epochs"] for r in group], [r["loss"] for r in group],
                   colour=number)
            for number, (length, group) in enumerate(sorted(grouped(kept, "length").items()))
        ])
    ]  # fmt: skip
    return finding


def _cost_of_repeats(rows: Sequence[Row]) -> list[str]:
    """Say, at each length, what the fewest unique tokens cost against the most."""
    said = []
    for length, group in sorted(grouped(rows, "length").items()):
        fewest, most = (f(group, key=lambda r: r["unique_tokens"]) for f in (min, max))
        if fewest["unique_tokens"] < most["unique_tokens"] and fewest["epochs"]:
            change = 100 * (fewest["loss"] / most["loss"] - 1)
            said.append(
                f"At length {length:.3g}, {fewest['epochs']:.1f} epochs of "
                f"{fewest['unique_tokens']} unique tokens end {change:+.2f} % from "
                f"{most['epochs']:.1f} of {most['unique_tokens']}."
            )
    return said


def recipes(rows: Sequence[Row], table: Path, options: FitOptions) -> Finding:
    """The best learning rate and batch of each size and length, and their powers."""
    kept = included(rows)
    finding = Finding("No law of rates or batches: too few optima lie inside the grid.")
    answers = []
    columns = {"lr": "lr", "batch": "batch_tokens", "tokens": "asked_tokens"}
    for knob, column in (("lr", "lr"), ("batch", "batch_tokens")):
        if len({row[column] for row in kept}) < 2:
            continue
        law = fitted(finding, knob, table, knob, options, columns)
        if law is not None:
            powers = [n for n in law["coefficients"] if n != "c"]
            answers.append(f"the best {WANTED[knob]} follows {_bare(law['equation'])} with "
                           + " and ".join(said_of(law, n) for n in powers))  # fmt: skip
    if answers:
        text = "; ".join(answers)
        finding.answer = text[0].upper() + text[1:] + "."
    points: dict[tuple[Any, ...], list[Row]] = {}
    for row in kept:
        points.setdefault((row["params"], row["length"]), []).append(row)
    for (params, length), members in sorted(points.items()):
        title = f"{params:.3g} params, length {length:.3g}"
        best = min(members, key=lambda r: r["loss"])
        finding.said.append(
            f"{title}: a rate of {best['lr']:.3g} and a batch of {best['batch_tokens']:,} tokens "
            f"are best of {len(members)}."
        )
        finding.panels.append(
            Panel(title, "learning rate", "validation loss", _curves_over_rate(members))
        )
    return finding


def _curves_over_rate(rows: Sequence[Row]) -> list[Series]:
    """Return loss over rate at each batch, as points and what joins them."""
    curves = []
    for number, (batch, members) in enumerate(sorted(grouped(rows, "batch_tokens").items())):
        group = sorted(members, key=lambda r: r["lr"])
        x, y = [r["lr"] for r in group], [r["loss"] for r in group]
        curves += [
            Series("", x, y, colour=number, line=True),
            Series(f"batch {batch:,}", x, y, colour=number),
        ]
    return curves


def _bare(equation: str) -> str:
    """Return an equation without its source, which follows in brackets with a capital letter."""
    return re.split(r" \([A-Z]", equation)[0]


def schedule(rows: Sequence[Row], table: Path, options: FitOptions) -> Finding:
    """Points from the decay branches of long runs, and the law through them."""
    kept = included(rows)
    finding = Finding("No branch finished.")
    if not kept:
        return finding
    law = fitted(finding, "chinchilla", table, "chinchilla", options)
    spent = sum(r["spent_flops"] for r in rows if r["spent_flops"])
    straight = sum(r["flops"] for r in kept)
    trunks = [r for r in rows if r["phase"] == "trunk"]
    finding.answer = (
        f"{len(kept)} points came from {len(trunks)} long runs at {100 * spent / straight:.0f} % "
        "of the compute that a run of its own for each would have taken."
    )
    if law is not None:
        names = [n for n in ("alpha", "beta") if n in law["coefficients"]]
        finding.said.append("Through them: " + ", ".join(said_of(law, n) for n in names) + ".")
    finding.said.append(
        "Points of one trunk share its weights and its order of data: their scatter is less than "
        "that of independent runs, and intervals resample whole trunks."
    )
    finding.numbers = {"spent_flops": spent, "straight_flops": straight}
    finding.panels = [
        Panel("Loss of every branch", "tokens", "validation loss", [
            Series(f"{params:,} params", [r["tokens"] for r in group], [r["loss"] for r in group],
                   colour=number)
            for number, (params, group) in enumerate(sorted(grouped(kept, "params").items()))
        ])
    ]  # fmt: skip
    return finding


def samples(rows: Sequence[Row], table: Path, options: FitOptions) -> Finding:
    """The best run of each length, whose clips stand side by side on the page."""
    del table, options
    best = best_of_lengths(rows)
    finding = Finding("No run finished.")
    if best:
        first, last = best[0], best[-1]
        finding.answer = (
            f"From {first['flops']:.2g} to {last['flops']:.2g} FLOPs the loss falls from "
            f"{first['loss']:.4g} to {last['loss']:.4g}; the clips show what that looks like."
        )
        finding.tables["The ladder"] = [
            {key: row[key] for key in ("flops", "params", "tokens", "loss", "name")} for row in best
        ]
        finding.panels = [
            Panel("The ladder", "FLOPs", "validation loss",
                  [Series("best run of a length", [r["flops"] for r in best],
                          [r["loss"] for r in best])])
        ]  # fmt: skip
    return finding


def best_of_lengths(rows: Sequence[Row]) -> list[Row]:
    """Return the included row of least loss of every length, in rising order."""
    groups = sorted(grouped(included(rows), "length").items())
    return [min(group, key=lambda row: row["loss"]) for _, group in groups]


ANALYSES: dict[Analysis, Callable[[Sequence[Row], Path, FitOptions], Finding]] = {
    Analysis.power: power,
    Analysis.data: data_constrained,
    Analysis.recipes: recipes,
    Analysis.schedule: schedule,
    Analysis.samples: samples,
}
