"""Read a table of runs: every cell checked, every refusal with its column, line and remedy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sweeps.fit.forms.base import Array, Relation
from sweeps.fit.rows.points import points_of
from sweeps.fit.rows.read import Source, no_such_column, read_rows, renamed, title_of
from sweeps.fit.rows.y_axis import YAxis, loss_on

TRUE_WORDS = {"1", "true", "yes"}
FALSE_WORDS = {"", "0", "false", "no"}
# Columns that name things and are not measured.
NAMES = ("curve",)


@dataclass(frozen=True)
class Table:
    """Hold the rows to fit: `columns` and `target` in row order, and what was left out and why.

    `lines` say where the rows stand: `line 5` of a file, `row 3` of a DataFrame. `clusters` are
    resampled together: those of the column `cluster`, else the rows that share the form's columns
    (the seeds of one point).
    """

    columns: dict[str, Array]
    target: Array
    names: list[str]
    clusters: list[Any]
    excluded: list[dict[str, str]]
    optional: dict[str, list[str]]
    notes: list[str]
    lines: list[str]

    def without(self, reasons: Sequence[str | None]) -> "Table":
        """Return the table without the rows that have a reason, which it then lists."""
        kept = [i for i, why in enumerate(reasons) if not why]
        named = [{"name": self.names[i], "reason": why} for i, why in enumerate(reasons) if why]
        return replace(
            self,
            columns={c: v[kept] for c, v in self.columns.items()},
            target=self.target[kept],
            names=[self.names[i] for i in kept],
            clusters=[self.clusters[i] for i in kept],
            excluded=self.excluded + named,
            optional={c: [v[i] for i in kept] for c, v in self.optional.items()},
            lines=[self.lines[i] for i in kept],
        )


def number(row: Mapping[str, str], column: str, line: str, target: str = "loss") -> float:
    """Return a positive number from one cell.

    A blank `target` is NaN (a run that has not ended); a non-finite one passes (one that diverged).
    """
    text = row[column].strip()
    if not text and column == target:
        return math.nan
    where = f"{column}={text!r} in {line}"
    if not text:
        raise ValueError(
            f"{where}: is blank, which only {target} may be (of a run that has not ended). Fill it "
            "in, or set excluded=true in that row."
        )
    try:
        value = float(text)
    except ValueError:
        raise ValueError(
            f"{where}: must be a number. Write it as 1200000 or 1.2e6 (no units, no commas), or "
            "set excluded=true in that row."
        ) from None
    if column == target and not math.isfinite(value):
        return value
    if not math.isfinite(value) or value <= 0:
        raise ValueError(
            f"{where}: must be finite and above 0. Correct it, or set excluded=true in that row."
        )
    return value


def truth(row: Mapping[str, str], column: str, line: str) -> bool:
    """Return a boolean cell; absent and empty cells are false."""
    word = row.get(column, "").strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(f"{column}={word!r} in {line}: must be true or false. Use 1 or 0.")
    return word in TRUE_WORDS


def read_table(
    source: Source,
    form: Relation,
    mapping: Mapping[str, str],
    drop_highest: int = 0,
    target: bool = True,
    y_axis: YAxis | None = None,
) -> Table:
    """Return the rows of a table that `form` can be fitted to; `source` as `read_rows` takes it.

    `mapping` names the columns (ours -> theirs). Where there is no `tokens` column but `flops`,
    tokens are flops / (6 params); where there is no `flops`, flops are 6 params tokens. The
    `drop_highest` rows of largest target are excluded, as some published procedures do. Optional
    columns: name, cluster, excluded (with reason). Without `target` the column may be absent.
    `y_axis` replaces each loss by that of its strata of time; None takes it as it stands.

    Raises:
        ValueError: naming the column, the line, the rule and the remedy.
    """
    if drop_highest < 0:
        raise ValueError(f"drop_highest={drop_highest}: must not be negative. Use 0.")
    title = title_of(source)
    raw, places = read_rows(source)
    raw = renamed(raw, {k: v for k, v in mapping.items() if v != k}, title)
    usable = [not truth(row, "excluded", place) for row, place in zip(raw, places, strict=True)]
    if y_axis is not None:
        _put_on(y_axis, [row for row, used in zip(raw, usable, strict=True) if used], title)
    notes = _derive(raw, places, usable, form, title)
    wanted = [*form.columns, *([form.target] if target or form.target in raw[0] else [])]
    missing = [c for c in wanted if c not in raw[0]]
    if missing:
        theirs, why = mapping.get(missing[0], missing[0]), f"form={form.name} needs "
        why += f"{', '.join(wanted)}. "
        raise ValueError(no_such_column(missing[0], theirs, title, list(raw[0]), why))
    rows, names, lines, excluded = [], [], [], []
    for line, row, used in zip(places, raw, usable, strict=True):
        name = row.get("name", "").strip() or line
        if not used:
            why = row.get("reason", "").strip() or "marked excluded in the table"
            excluded.append({"name": name, "reason": why})
        else:
            rows.append(row)
            names.append(name)
            lines.append(line)
    return _assemble(rows, names, lines, excluded, wanted, form, drop_highest, notes)


def _put_on(axis: YAxis, rows: Sequence[dict[str, str]], title: str) -> None:
    """Replace the losses of rows by those on an axis; a noise of other losses becomes unknown.

    A row without a loss, of a run that has not ended, is left.
    """
    for row in rows:
        if not (before := row.get("loss", "")):
            continue
        loss = loss_on(axis, row, title)
        if not math.isclose(loss, float(before), rel_tol=1e-9):
            row |= {"loss": repr(loss)} | ({"loss_noise": ""} if "loss_noise" in row else {})


def _assemble(
    rows: list[dict[str, str]],
    names: list[str],
    lines: list[str],
    excluded: list[dict[str, str]],
    wanted: Sequence[str],
    form: Relation,
    drop_highest: int,
    notes: list[str],
) -> Table:
    columns: dict[str, Array] = {}
    for column in wanted:
        if column in NAMES:
            known = {
                text: float(i) for i, text in enumerate(dict.fromkeys(r[column] for r in rows))
            }
            columns[column] = np.array([known[row[column]] for row in rows])
        else:
            values = [number(r, column, n, form.target) for r, n in zip(rows, lines, strict=True)]
            columns[column] = np.array(values)
    target = columns.pop(form.target, np.full(len(rows), np.nan))
    keep = np.ones(len(rows), dtype=bool)
    for i in np.argsort(np.where(np.isfinite(target), -target, -np.inf))[:drop_highest]:
        keep[i] = False
        why = f"among the {drop_highest} highest values of {form.target} (drop_highest)"
        excluded.append({"name": names[i], "reason": why})
    kept = np.flatnonzero(keep)
    optional = {k: [rows[i].get(k, "").strip() for i in kept] for k in rows[0]} if rows else {}
    points = points_of([columns[c][keep] for c in form.columns])
    clusters = [
        rows[i].get("cluster", "").strip() or point for i, point in zip(kept, points, strict=True)
    ]
    return Table(
        {c: v[keep] for c, v in columns.items()}, target[keep], [names[i] for i in kept], clusters,
        excluded, optional, notes, [lines[i] for i in kept],
    )  # fmt: skip


def _derive(
    raw: list[dict[str, str]], places: list[str], usable: list[bool], form: Relation, title: str
) -> list[str]:
    """Fill in `tokens` or `flops` from the other where the table has only one; say so.

    A table of curves without a `curve` column is one curve.
    """
    have, used = raw[0], [r for r in zip(places, raw, usable, strict=True) if r[2]]
    if "curve" in form.columns and "curve" not in have:
        for row in raw:
            row["curve"] = "0"
        return [f"{title} has no column curve: its rows are taken as one curve."]
    if "tokens" in form.columns and "tokens" not in have and {"flops", "params"} <= set(have):
        for row in raw:
            row["tokens"] = ""
        for line, row, _ in used:
            row["tokens"] = str(number(row, "flops", line) / (6 * number(row, "params", line)))
        return [f"{title} has no tokens: they are taken as flops / (6 params)."]
    if "flops" in form.columns and "flops" not in have and {"tokens", "params"} <= set(have):
        for row in raw:
            row["flops"] = ""
        for line, row, _ in used:
            row["flops"] = str(6 * number(row, "tokens", line) * number(row, "params", line))
        return [f"{title} has no flops: they are taken as 6 params tokens."]
    return []
