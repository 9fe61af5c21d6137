"""Read a run folder whatever lies in it: values of the wrong kind are noted and left out."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.reading import kind_of, number_of, parse_object, read_object, read_tail

Note = Callable[[str], None]
# Larger than any step or moment of a run; what lies beyond would only fill the table.
_MOST = 1e15
_TAIL_BYTES = 1 << 16


class Facts:
    """An object's values by kind; what is of another kind is noted, and counts as not said."""

    def __init__(self, values: Mapping[str, Any], place: str, note: Note) -> None:
        self._values, self._place, self._note = values, place, note

    def number(self, key: str, least: float = 0.0, most: float = _MOST) -> float | None:
        """Return a finite number within bounds, None where none is said."""
        value = self._values.get(key)
        if value is None:
            return None
        found = number_of(value)
        if found is None:
            self._note(f"{self._place}{key} is {kind_of(value)}, where a number belongs")
        elif not least <= found <= most:
            self._note(f"{self._place}{key} is out of range")
        else:
            return found
        return None

    def count(self, key: str, least: int = 0) -> int:
        """Return a whole number, 0 where none is said."""
        return int(self.number(key, least) or 0)

    def text(self, key: str) -> str:
        """Return a text, '' where none is said."""
        value = self._values.get(key)
        if isinstance(value, str) or value is None:
            return value or ""
        self._note(f"{self._place}{key} is {kind_of(value)}, where text belongs")
        return ""

    def section(self, key: str) -> "Facts":
        """Return an object within, an empty one where none is said."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, dict):
            self._note(f"{self._place}{key} is {kind_of(value)}, where a section belongs")
        inner = value if isinstance(value, dict) else {}
        return Facts(inner, f"{self._place}{key}.", self._note)


class FolderReader:
    """Read the files of a run; ``problems`` says once each what was wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._problems: dict[str, None] = {}

    def note(self, problem: str) -> None:
        """Note what is wrong."""
        self._problems[problem] = None

    @property
    def problems(self) -> list[str]:
        """Return what was wrong so far, in the order of its finding."""
        return list(self._problems)

    def read(self, name: str) -> Facts | None:
        """Return an object's facts; None where there is none, or it cannot be read."""
        content = read_object(self.folder / name)
        if content.problem:
            self.note(content.problem)
        elif content.exists:
            return Facts(content.values, f"{name}: ", self.note)
        return None

    def has(self, name: str) -> bool:
        """Tell whether there is something of a name; False where that cannot be known."""
        return os.path.lexists(self.folder / name)

    def last_records(self, name: str, count: int) -> list[Facts]:
        """Return the last whole objects of a file of lines; the last line may be half written."""
        text, problem = read_tail(self.folder / name, _TAIL_BYTES)
        if problem:
            self.note(problem)
        lines = text.splitlines()[-count:]
        found = [record for line in lines if (record := parse_object(line)) is not None]
        if len(lines) > 2 and not found:
            self.note(f"{name}: its last lines are no JSON")
        return [Facts(record, f"{name}: ", self.note) for record in found]
