"""Read a table of runs from wherever it lies: a file, a DataFrame, a list, a tracker's project."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.fit.rows.files import read_file, text_rows
from sweeps.fit.rows.wandb_runs import SCHEME, wandb_rows

SHOWN = 40  # names of columns in one message: a tracker's project has hundreds


class PandasLike(Protocol):
    """A DataFrame as pandas has it."""

    def to_dict(self, orient: Any) -> Any:
        """Return the rows as dicts for orient="records"."""


class PolarsLike(Protocol):
    """A DataFrame as polars has it."""

    def to_dicts(self) -> Any:
        """Return the rows as dicts."""


Source = str | Path | Sequence[Mapping[str, Any]] | PandasLike | PolarsLike


def title_of(source: Source) -> str:
    """Return what messages call a table."""
    if isinstance(source, str) and source.startswith(SCHEME):
        return source
    if isinstance(source, str | Path):
        return Path(source).name
    return type(source).__name__


def read_rows(source: Source) -> tuple[list[dict[str, str]], list[str]]:
    """Return the rows of a table as text, and where each stands (`line 5`, `row 3`, `run abc`).

    Every row holds every column; rows without any value are left out.

    Args:
        source: a path (csv, jsonl, json, parquet), `wandb:entity/project`, a DataFrame of pandas
            or polars, or a list of dicts.

    Raises:
        ValueError: it is no table, naming the place, the rule and the remedy.
    """
    title = title_of(source)
    if title.startswith(SCHEME):
        numbered = wandb_rows(title)
    elif isinstance(source, str | Path):
        numbered = read_file(Path(source))
    else:
        numbered = list(text_rows(title, _records(source)))
    numbered = [(place, row) for place, row in numbered if any(row.values())]
    if not numbered:
        where = source if isinstance(source, str | Path) else title
        raise ValueError(f"table={where}: has a header and no rows. Add one row a run.")
    columns = dict.fromkeys(column for _, row in numbered for column in row)
    return [{c: row.get(c, "") for c in columns} for _, row in numbered], [p for p, _ in numbered]


def _records(source: Any) -> Sequence[Any]:
    """Return the rows of a DataFrame, of whatever library, or of a list."""
    if hasattr(source, "to_dicts"):
        return list(source.to_dicts())
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return list(source.to_dict(orient="records"))
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return source
    raise ValueError(
        f"table={type(source).__name__}: is no table. Give a path, wandb:entity/project, a "
        "DataFrame (pandas or polars) or a list of dicts."
    )


def no_such_column(ours: str, theirs: str, title: str, have: Sequence[str], why: str = "") -> str:
    """Say that a table lacks a column, which it has, and which of those may have been meant."""
    near = [c for c in have if c.lower() == theirs.lower()]
    near += [c for c in have if c.lower().endswith(f".{theirs.lower()}")]
    near += difflib.get_close_matches(theirs, have, n=1, cutoff=0.75)
    example = f"columns.{ours}={near[0] if near else 'COLUMN'}"
    meant = f" Is it {near[0]}?" if near else ""
    more = f" and {len(have) - SHOWN} more" if len(have) > SHOWN else ""
    return (
        f"{ours}={theirs}: not a column of {title}, which has {list(have[:SHOWN])}{more}.{meant} "
        f"{why}Name the right one, as in {example}."
    )


def renamed(
    rows: Sequence[dict[str, str]], columns: Mapping[str, str], title: str
) -> list[dict[str, str]]:
    """Return the rows with the columns of `columns` (ours -> theirs) also under our names.

    Raises:
        ValueError: a column is not there.
    """
    for ours, theirs in columns.items():
        if theirs not in rows[0]:
            raise ValueError(no_such_column(ours, theirs, title, list(rows[0])))
    return [row | {ours: row[theirs] for ours, theirs in columns.items()} for row in rows]
