"""Keep the films of which tables and sidecars say what ``where`` asks for."""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from data.ingest.layouts import plain
from data.ingest.tables import typed
from data.keys import guess
from data.media.reject import Reject
from data.reading import number_of

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
CONDITION = re.compile(r"\s*(.+?)\s*(>=|<=|!=|==|>|<|=)\s*(.+?)\s*")


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a value."""

    column: str
    sign: str
    value: Any

    def check(self, metadata: dict[str, Any]) -> None:
        """Raise Reject unless the metadata of a film fulfil it."""
        text = f"where={self.column} {self.sign} {self.value}"
        found = next((v for c, v in metadata.items() if plain(c) == plain(self.column)), None)
        if found is None:
            raise Reject(f"has no {self.column}", f"{text} asks for it.", "where")
        if isinstance(found, str) and isinstance(self.value, int | float):
            found = typed(found.strip())
        number, limit = number_of(found), number_of(self.value)
        if number is not None and limit is not None:
            if not OPERATORS[self.sign](number, limit):
                said = f"{self.column} {number:g} is not {self.sign} {limit:g}"
                raise Reject(said, f"Change {text} to keep it.", "where", number, limit)
            return
        same = str(found).strip().lower() == str(self.value).lower()
        if self.sign not in ("=", "==", "!=") or same == (self.sign == "!="):
            said = f"{self.column} {str(found)[:60]} is not {self.sign} {self.value}"
            raise Reject(said, f"Change {text} to keep it.", "where")


def conditions_of(where: str) -> list[Condition]:
    """Return the conditions of a text such as ``aesthetic score >= 5 and license = cc0``.

    Raises ValueError where a part of it is none.
    """
    conditions = []
    for part in re.split(r"\s+and\s+", where.strip()) if where.strip() else []:
        found = CONDITION.fullmatch(part)
        if found is None:
            raise ValueError(
                f"where={where}: {part!r} is no condition. Write COLUMN >= VALUE, joined by and; "
                f"signs are {' '.join(OPERATORS)}."
            )
        column, sign, value = found.groups()
        conditions.append(Condition(column, sign, typed(value.strip("'\""))))
    return conditions


def check_columns(conditions: Iterable[Condition], columns: Iterable[str]) -> None:
    """Raise ValueError for a column that no film has."""
    held = sorted(set(columns))
    known = {plain(column) for column in held}
    for condition in conditions:
        if plain(condition.column) not in known:
            shown = ", ".join(held[:30]) or "none"
            raise ValueError(
                f"where={condition.column}: no film has such a column. "
                f"{guess(condition.column, held)}Columns: {shown}."
            )
