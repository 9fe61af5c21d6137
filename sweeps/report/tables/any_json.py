"""Tables of any JSON: where the writer of a file, not this page, decides what to account for."""

from collections.abc import Sequence
from typing import Any

from sweeps.report.inputs.isoflop import Json
from sweeps.report.tables.isoflop import Cell, Table, make_table, pairs_table, show_value
from sweeps.report.wording import heading

_MAX_DEPTH = 3


def tabulate(title: str, value: Any) -> list[Table]:
    """Return tables for any JSON value: rows of like objects side by side, the rest as pairs."""
    tables: list[Table] = []
    _tabulate(title, value, 0, tables)
    return tables


def _tabulate(title: str, value: Any, depth: int, tables: list[Table]) -> None:
    rows = _like_rows(value)
    if rows is not None:
        tables.append(_records_table(title, rows))
    elif isinstance(value, dict):
        nested = {k: v for k, v in value.items() if _is_nested(v)}
        plain = [(_label(k), show_value(v)) for k, v in value.items() if k not in nested]
        if plain:
            tables.append(pairs_table(title, plain))
        for key, item in nested.items():
            name = f"{title} · {_label(key)}" if title else _label(key)
            if depth < _MAX_DEPTH:
                _tabulate(name, item, depth + 1, tables)
            else:
                tables.append(pairs_table(name, [(name, show_value(item))]))
    elif value not in (None, [], ""):
        tables.append(pairs_table(title, [(title, show_value(value))]))


def _is_nested(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _like_rows(value: Any) -> list[tuple[str, Json]] | None:
    """Return (row name, row) pairs if ``value`` is a list or mapping of flat objects."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [("", item) for item in value]
    if isinstance(value, dict) and len(value) > 1:
        items = list(value.values())
        flat = all(isinstance(i, dict) and i and not any(_is_nested(v) for v in i.values())
                   for i in items)  # fmt: skip
        if flat and any(set(items[0]) & set(item) for item in items[1:]):
            return [(str(key), item) for key, item in value.items()]
    return None


def _records_table(title: str, rows: Sequence[tuple[str, Json]]) -> Table:
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    named = any(name for name, _ in rows)
    cells = [
        [Cell(name)] * named
        + [
            Cell(show_value(row.get(key)), float(row[key]))
            if isinstance(row.get(key), int | float) and not isinstance(row[key], bool)
            else Cell(show_value(row.get(key)))
            for key in keys
        ]
        for name, row in rows
    ]
    return make_table(title, [""] * named + [_label(key) for key in keys], cells)


def _label(key: object) -> str:
    return heading(key)
