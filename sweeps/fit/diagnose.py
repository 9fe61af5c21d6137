"""Say in plain words when a table cannot make a law, and when a law is not one."""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sweeps.fit.bootstrap import Bootstrap
from sweeps.fit.forms import Array, Points
from sweeps.fit.solve import Fit

if TYPE_CHECKING:
    from sweeps.fit.law import Law

MIN_RUNS = 6  # one more than the five coefficients
# An interval whose ends differ by more than this factor does not identify the coefficient. A and B
# are losses at N = 1 and D = 1, ten e-folds from any run, so their honest intervals are wide.
MAX_SPREAD = {"E": 1.5, "A": 30.0, "alpha": 2.0, "B": 30.0, "beta": 2.0}
# Twice the loss of a run with no more parameters and no more tokens is a diverged run: the largest
# reversal from an untuned recipe in the pilot (DESIGN section 5) was 1.5.
DIVERGED_FACTOR = 2.0
MAX_CONDITION = 1e8
TRUE_WORDS = {"1", "true", "yes"}
FALSE_WORDS = {"", "0", "false", "no"}


def read_rows(path: Path, columns: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the csv's rows with the columns of `columns` (ours -> theirs) renamed to ours."""
    if not path.is_file():
        raise ValueError(f"table={path}: is not a file. Give a csv with a header row.")
    try:
        rows = _read(path, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"table={path}: is not a csv in UTF-8 ({error}). Export it anew."
        ) from None
    if not rows:
        raise ValueError(f"table={path}: has a header and no rows. Add one row a run.")
    return rows


def _read(path: Path, columns: Mapping[str, str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = [h.strip() for h in reader.fieldnames or []]
        for ours, theirs in columns.items():
            if theirs not in header:
                raise ValueError(
                    f"{ours}={theirs}: not a column of {path.name}, which has {header}. "
                    f"Name the right one, as in {ours}=COLUMN."
                )
        rows = []
        for raw in reader:
            clean = {(k or "").strip(): (v or "") for k, v in raw.items() if isinstance(k, str)}
            rows.append(clean | {ours: clean[theirs] for ours, theirs in columns.items()})
    return rows


def number(row: Mapping[str, str], column: str, line: int) -> float:
    """Return a positive number from one cell; a non-finite `loss` passes (a diverged run)."""
    text = row[column].strip()
    where = f"{column}={text!r} in line {line}"
    try:
        value = float(text)
    except ValueError:
        raise ValueError(
            f"{where}: must be a number. Correct it, or set excluded=true in that row."
        ) from None
    if column == "loss" and not math.isfinite(value):
        return value
    if not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"{where}: must be finite and above 0. Correct it, or set excluded=true in that row."
        )
    return value


def truth(row: Mapping[str, str], column: str, line: int) -> bool:
    """Return a boolean cell; absent and empty cells are false."""
    word = row.get(column, "").strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"{column}={word!r} in line {line}: must be true or false. Use 1 or 0.")
    return word in TRUE_WORDS


def check_points(points: Points) -> None:
    """Raise ValueError where no law can come of the columns: too few runs, swapped columns."""
    distinct = len(np.unique(np.stack([points.params, points.tokens], 1), axis=0))
    if distinct < MIN_RUNS:
        raise ValueError(
            f"runs={distinct}: form=chinchilla has 5 coefficients and needs at least {MIN_RUNS} "
            "runs at distinct (params, tokens). Add runs."
        )
    for name, column in (("params", points.params), ("tokens", points.tokens)):
        if np.median(column) < np.median(points.loss):
            raise ValueError(
                f"{name} has median {np.median(column):.4g} and loss {np.median(points.loss):.4g}: "
                f"{name} must be the larger; the columns look swapped. "
                f"Set {name}=COLUMN and loss=COLUMN to the right ones."
            )


def excluded_reasons(params: Array, tokens: Array, loss: Array) -> list[str | None]:
    """Return for each run why it cannot be fitted (non-finite or diverged), or None."""
    reasons: list[str | None] = []
    finite = np.isfinite(loss)
    for i in range(len(loss)):
        below = finite & (params <= params[i]) & (tokens <= tokens[i])
        below[i] = False
        best = float(np.min(loss[below])) if below.any() else math.inf
        if not finite[i]:
            reasons.append(f"loss is {loss[i]}: the run diverged or has not ended")
        elif loss[i] > DIVERGED_FACTOR * best:
            reasons.append(
                f"diverged: loss {loss[i]:.4g} is {loss[i] / best:.1f} times that of a run with "
                "no more parameters and no more tokens"
            )
        else:
            reasons.append(None)
    return reasons


def identified(
    fit: Fit, boot: Bootstrap, points: Points
) -> dict[str, dict[str, bool | str | None]]:
    """Say for each coefficient whether these runs determine it, and if not why."""
    values = fit.coefficients
    verdicts: dict[str, dict[str, bool | str | None]] = {}
    for name in fit.form.coefficient_names:
        low, high = boot.of(lambda theta, n=name: fit.form.coefficients(theta)[n])  # type: ignore[misc]
        reasons = list(_reasons(name, values, (low, high), fit, points))
        verdicts[name] = {"ok": not reasons, "reason": "; ".join(reasons) or None}
    return verdicts


def _reasons(
    name: str, values: dict[str, float], interval: tuple[float, float], fit: Fit, points: Points
) -> Iterator[str]:
    """Yield the reasons why coefficient `name` is not identified."""
    low, high = interval
    least = float(points.loss.min())
    varied = {"A": points.params, "alpha": points.params, "B": points.tokens, "beta": points.tokens}
    if name in varied and (count := len(np.unique(varied[name]))) < 3:
        yield f"only {count} distinct values of its variable: three are needed"
    if name in fit.at_bound:
        yield "the fit ends on the wall of the search box"
    if name == "E" and values["E"] < 0.01 * least:
        yield f"E is near 0 (under 1 % of the least loss {least:.4g})"
    elif name == "E" and values["E"] >= least:
        yield f"E is not below the least loss {least:.4g}"
    if not np.isfinite(low + high):
        yield "no bootstrap resample could be fitted"
    elif low <= 0:
        yield f"its interval reaches {low:.3g}"
    elif high / low > MAX_SPREAD[name]:
        yield (
            f"its interval [{low:.3g}, {high:.3g}] spans a factor {high / low:.2g}, more than "
            f"{MAX_SPREAD[name]:g}"
        )


def warn(law: "Law") -> list[str]:
    """Return every warning about a law, most serious first, each a sentence with its figures."""
    return [
        *_warn_fit(law.fit, law.bootstrap),
        *(
            f"{name} is not identified: {verdict['reason']}."
            for name, verdict in law.identified.items()
            if not verdict["ok"]
        ),
        *_warn_runs(law),
        *_warn_reach(law),
    ]


def _warn_fit(fit: Fit, boot: Bootstrap) -> Iterator[str]:
    if not fit.converged:
        yield f"The fit has not converged: gradient norm {fit.gradient_norm:.2g}."
    if 2 * fit.starts_agreeing < fit.starts_tried:
        yield (
            f"Only {fit.starts_agreeing} of {fit.starts_tried} starts reach the best objective: "
            "the optimum may not be the only one."
        )
    if fit.condition > MAX_CONDITION:
        yield f"The design is degenerate: condition number {fit.condition:.1g}."
    if boot.failed > 0.05:
        yield (
            f"{100 * boot.failed:.0f} % of the bootstrap resamples could not be fitted: the "
            "intervals rest on the others and are too narrow."
        )


def _warn_runs(law: "Law") -> Iterator[str]:
    points = law.points
    for run in law.excluded:
        yield f"Run {run['name']} is excluded: {run['reason']}."
    rows = np.stack([points.params, points.tokens, points.loss], axis=1)
    if doubles := len(rows) - len(np.unique(rows, axis=0)):
        yield f"{doubles} runs are exact duplicates of others (params, tokens, loss): drop them."
    if len(np.unique(points.params)) == 1:
        yield "All runs have one size: how loss falls with parameters cannot be known."
    if (budgets := len(law.budgets)) < 3:
        yield f"The runs form {budgets} compute budgets: a frontier needs at least 3."
    yield from _warn_rising(points)
    scatter, noise = law.scatter, law.noise_floor
    if noise is not None and scatter > 2 * noise:
        yield (
            f"Residuals scatter by {100 * scatter:.2g} %, {scatter / noise:.1f} times the measured "
            f"noise of {100 * noise:.2g} %: the form or the recipe misses something."
        )


def _warn_rising(points: Points) -> Iterator[str]:
    columns = [np.ones(len(points.loss)), np.log(points.params), np.log(points.tokens)]
    slopes = np.linalg.lstsq(np.stack(columns, 1), np.log(points.loss), rcond=None)[0][1:]
    rising = [n for n, s in zip(("params", "tokens"), slopes, strict=True) if s > 1e-9]
    if rising:
        yield (
            f"Loss rises with {' and with '.join(rising)} where the other is held fixed: "
            "columns swapped, runs unconverged, or an untuned recipe; the form cannot rise."
        )


def _warn_reach(law: "Law") -> Iterator[str]:
    refused = [m for m in law.isoflop if not m.interior]
    for minimum in refused:
        yield f"The isoFLOP minimum at {minimum.budget:.3g} FLOPs is refused: {minimum.reason}."
    tested = law.held_out.extrapolation_factor if law.held_out else 1.0
    for point in law.frontier:
        if not point.interior:
            yield f"The frontier at {point.flops:.3g} FLOPs has no interior minimum."
        if point.extrapolation_factor > 1.01 * tested:
            yield (
                f"The frontier at {point.flops:.3g} FLOPs lies {point.extrapolation_factor:.3g}x "
                "beyond the largest fitted run, "
                f"{point.extrapolation_factor / tested:.2g} times further than the held-out test "
                f"reached ({tested:.3g}x)."
            )
    if law.held_out and not law.held_out.inside:
        yield (
            f"The held-out budget {law.held_out.budget:.3g} missed its interval: relative error "
            f"{100 * law.held_out.relative_error:+.2f} %."
        )
    if not law.held_out:
        yield f"No held-out test: {law.held_out_reason}."
