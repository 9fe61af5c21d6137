"""Read files that anybody may have left in a folder: bounded, never waiting, never raising.

A pipe, a device, a file of another user, a document that grows when it is read: each becomes a
sentence about it. The standard library alone, and PyYAML where a file is YAML.
"""

import json
import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OBJECT_BYTES = 4 << 20
YAML_BYTES = 1 << 20
_YAML_DEPTH = 64
_CHUNK = 1 << 18  # memory is taken for as much as is asked for
_NUMBER = re.compile(r"[-+]?(\d+|(\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+)")
_WORDS: dict[str, bool | float | None] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    ".inf": math.inf, "-.inf": -math.inf, ".nan": math.nan,
}  # fmt: skip


@dataclass(frozen=True)
class Content:
    """What a file holds: an object, or why there is none.

    problem: ``NAME: what is wrong with it``, '' where it could be read and where there is none.
    exists: whether there is something of this name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    exists: bool = True


class _Refused(Exception):
    """A file is not read; the text says why."""


def read_object(path: Path, limit: int = 0) -> Content:
    """Read a JSON object, or a YAML mapping where the name ends in .yaml; never raises.

    limit: bytes it may have; 0 takes OBJECT_BYTES or YAML_BYTES. YAML may hold no alias and no tag:
    a few lines with aliases are gigabytes when they are read.
    """
    is_yaml = path.suffix == ".yaml"
    try:
        text = _read(path, limit or (YAML_BYTES if is_yaml else OBJECT_BYTES)).decode("utf-8")
        found = _parse_yaml(text) if is_yaml else json.loads(text)
    except FileNotFoundError:
        if os.path.islink(path):
            return Content(problem=f"{path.name}: is a link to nothing")
        return Content(exists=False)
    except (OSError, ValueError, RecursionError, _Refused) as error:
        return Content(problem=f"{path.name}: {_explain(error)}")
    if not isinstance(found, dict):
        return Content(problem=f"{path.name}: is {kind_of(found)}, no object")
    return Content(found)


def read_tail(path: Path, size: int) -> tuple[str, str]:
    """Return the last ``size`` bytes of a text file and what is wrong with it; never raises.

    ('', '') where there is none. What is no UTF-8 is replaced.
    """
    try:
        return _read(path, size, only_tail=True).decode("utf-8", errors="replace"), ""
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError, _Refused) as error:
        return "", f"{path.name}: {_explain(error)}"


def parse_object(line: str) -> dict[str, Any] | None:
    """Return the JSON object of a line, or None."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def number_of(value: Any) -> float | None:
    """Return a finite number, or None for anything else; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in a word or two."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number" if number_of(value) is not None else "a number that is not finite"
    kinds = {dict: "an object", list: "a list", str: "text", type(None): "null"}
    return kinds.get(type(value), "true or false")


def _read(path: Path, limit: int, only_tail: bool = False) -> bytes:
    """Read a regular file of at most ``limit`` bytes, or the last ones of any.

    Without O_NONBLOCK opening a pipe would wait for its writer for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            raise _Refused(f"is a {'folder' if is_folder else 'pipe or device'}, no file")
        if only_tail:
            # 0 in /proc, whose files state no size.
            os.lseek(descriptor, max(0, status.st_size - limit), os.SEEK_SET)
            return _read_all(descriptor, limit)
        content = _read_all(descriptor, limit + 1)  # it may grow while it is read
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise _Refused(f"is larger than {limit >> 10} KiB")
    return content


def _read_all(descriptor: int, most: int) -> bytes:
    """Read until the end, or so many bytes; one read may return less than there is."""
    parts: list[bytes] = []
    while most > 0 and (part := os.read(descriptor, min(most, _CHUNK))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _explain(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    if isinstance(error, RecursionError):
        return "is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "is no text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"is no JSON (line {error.lineno})"
    return str(error) if isinstance(error, _Refused) else "holds what cannot be read as a value"


def _parse_yaml(text: str) -> Any:
    """Return the plain value of a YAML text.

    From its events, since a loader would expand aliases and follow any depth.
    """
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    top: list[Any] = []
    stack: list[_Open] = [_Open(top)]
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                stack[-1].add(_scalar(event.value, event.implicit[0]))
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack[-1].add(made)
                stack.append(_Open(made))
                if len(stack) > _YAML_DEPTH:
                    raise _Refused("is nested too deep")
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                stack.pop()
            elif isinstance(event, yaml.AliasEvent):
                raise _Refused("holds an alias, which no frozen config does")
            if getattr(event, "tag", None) is not None:
                raise _Refused("holds a tag, which no frozen config does")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _Refused(f"is no YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if len(top) > 1:
        raise _Refused("holds several documents")
    return top[0] if top else None


class _Open:
    """A list or mapping that is being read."""

    def __init__(self, made: Any) -> None:
        self._made, self._key = made, ""
        self._has_key = False

    def add(self, value: Any) -> None:
        """Add an entry, or a mapping's key and then its value."""
        if isinstance(self._made, list):
            self._made.append(value)
        elif self._has_key:
            self._made[self._key], self._has_key = value, False
        elif isinstance(value, dict | list):
            raise _Refused("has a key that is no word")
        else:
            self._key, self._has_key = str(value), True


def _scalar(text: str, plain: bool) -> Any:
    if not plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text
