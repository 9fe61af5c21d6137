"""What the page of anybody's table shows: its rows as runs, fitted or left out, and their law."""

import csv
import io
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.fit.bands import bands
from sweeps.fit.forecast.choice import AUTO
from sweeps.fit.forms.catalogue import LOSS_FORMS
from sweeps.fit.law import fit_both
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.result import Law
from sweeps.fit.rows.read import Source, read_rows, renamed, title_of
from sweeps.fit.rows.wandb_runs import SCHEME
from sweeps.report.inputs.isoflop import SAME_BUDGET, Inputs, Json, Run, to_number

MOST_ROWS = 800  # drawn and listed on a page; the law is fitted to all
MOST_COLUMNS = 24  # besides the fitter's own: a tracker's project has hundreds
_OURS = ("name", "params", "tokens", "flops", "budget", "loss", "excluded", "reason")


@dataclass(frozen=True)
class TableInputs:
    """A table with its law, as the parts of a study's page take them.

    inputs: runs (at most `MOST_ROWS`) and law. dense: the frontier over compute, a point a row of
    `bands`. rows, fitted, left_out: how many the table has, of which kind.
    """

    inputs: Inputs
    dense: list[Json]
    rows: int
    fitted: int
    left_out: int


def read_table_inputs(
    source: Source,
    form: str = AUTO,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    drop_highest: int = 0,
    published: Mapping[str, float] | None = None,
) -> TableInputs:
    """Fit a table and return what its page shows; arguments as of `fit_table`.

    Raises:
        ValueError: as `fit_table`, and for a form that has no frontier over params and tokens.
    """
    names = dict(columns or {})
    if form not in (AUTO, *LOSS_FORMS):
        raise ValueError(
            f"form={form}: has no frontier over params and tokens, which a page shows. Use one of "
            f"{', '.join((AUTO, *LOSS_FORMS))}, or kinescale fit for the law alone."
        )
    title = title_of(source)
    if title.startswith(SCHEME):
        source = read_rows(source)[0]  # a server is asked once
    raw, places = read_rows(source)
    raw = renamed(raw, {k: v for k, v in names.items() if v != k}, title)
    found, law = fit_both(
        source, form, options, columns=names, drop_highest=drop_highest, published=published
    )
    assert law is not None
    runs = _runs(raw, places, law, found)
    kept = [runs[i] for i in _evenly(len(runs))]
    kept = [replace(run, values=_row(run, names)) for run in kept]
    kept = _narrowed(kept)
    inputs = Inputs(
        Path(title), runs=kept, runs_csv=_csv(kept), law=found, study={"name": Path(title).stem}
    )
    return TableInputs(
        inputs=inputs,
        dense=[_point(row, law) for row in bands(law)],
        rows=len(runs),
        fitted=len(law.runs),
        left_out=len(runs) - len(law.runs),
    )


def _runs(
    raw: Sequence[Mapping[str, str]], places: Sequence[str], law: Law, found: Json
) -> list[Run]:
    """Return every row as a run, in the table's order; one of a name that others have tells where.

    Rows and fitted runs are in one order, so that rows of one name are told apart.
    """
    named = [row.get("name", "").strip() or place for row, place in zip(raw, places, strict=True)]
    count = Counter(named)
    reasons: dict[str, deque[str]] = {}
    for item in law.excluded:
        reasons.setdefault(item["name"], deque()).append(item["reason"])
    budget_of = {int(i): c for c, rows in law.budgets for i in rows}
    runs, at, left_out = [], 0, []
    for row, place, name in zip(raw, places, named, strict=True):
        shown = f"{name} ({place})" if count[name] > 1 else name
        params, loss = to_number(row.get("params")), to_number(row.get("loss"))
        fitted = law.runs[at] if at < len(law.runs) else None
        if fitted and (fitted.name, fitted.params, fitted.loss) == (name, params, loss):
            found["residuals"][at]["name"] = shown
            budget = budget_of.get(at, math.nan)
            tokens, flops, why = fitted.tokens, fitted.flops, ""
            at += 1
        else:
            why = reasons[name].popleft() if reasons.get(name) else "left out"
            tokens, flops = _tokens_and_flops(row, params)
            budget = _near(flops, [c for c, _ in law.budgets])
            left_out.append({"name": shown, "reason": why})
        runs.append(Run(shown, "", params, tokens, flops, loss, budget, bool(why), why, dict(row)))
    found["excluded"] = left_out
    return runs


def _tokens_and_flops(row: Mapping[str, str], params: float) -> tuple[float, float]:
    """Return both of a row that was left out, whose cells need not be numbers."""
    tokens, flops = to_number(row.get("tokens")), to_number(row.get("flops"))
    if math.isnan(tokens) and params > 0:
        tokens = flops / (6 * params)
    return tokens, 6 * params * tokens if math.isnan(flops) else flops


def _near(flops: float, budgets: Sequence[float]) -> float:
    near = [c for c in budgets if flops > 0 and abs(math.log(flops / c)) < math.log(SAME_BUDGET)]
    return near[0] if near else math.nan


def _row(run: Run, names: Mapping[str, str]) -> dict[str, str]:
    """Return the cells of a run under our names, as a study's runs.csv has them."""
    numbers = {k: getattr(run, k) for k in ("params", "tokens", "flops", "budget", "loss")}
    known = {k: f"{v:.10g}" for k, v in numbers.items() if math.isfinite(v)}
    ours = {"name": run.name} | known | {"excluded": str(int(run.excluded)), "reason": run.reason}
    theirs = {k for ours_, k in names.items() if ours_ != k} | set(_OURS)
    return ours | {k: v for k, v in run.values.items() if k not in theirs}


def _narrowed(runs: Sequence[Run]) -> list[Run]:
    """Return runs with the first columns that vary, besides ours."""
    keys = dict.fromkeys(key for run in runs for key in run.values)
    varied = [k for k in keys if k not in _OURS and len({run.values.get(k) for run in runs}) > 1]
    kept = {*_OURS, *varied[:MOST_COLUMNS]}
    return [replace(run, values={k: v for k, v in run.values.items() if k in kept}) for run in runs]


def _evenly(count: int) -> list[int]:
    """Return the places of at most `MOST_ROWS` of so many rows, evenly taken."""
    kept = min(count, MOST_ROWS)
    return [i * count // kept for i in range(kept)]


def _csv(runs: Sequence[Run]) -> bytes:
    text = io.StringIO()
    keys = list(dict.fromkeys(key for run in runs for key in run.values))
    writer = csv.DictWriter(text, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(run.values for run in runs)
    return text.getvalue().encode("utf-8")


def _point(row: Mapping[str, float], law: Law) -> dict[str, Any]:
    """Return a row of `bands` as a point of law.json's frontier."""
    names = ("params", "tokens", "loss")
    return {
        **{name: row[name] for name in ("flops", *names)},
        "intervals": {name: [row[f"{name}_low"], row[f"{name}_high"]] for name in names},
        "extrapolation_factor": row["flops"] / max(run.flops for run in law.runs),
    }
