"""Tables of a schema's keys for help texts and the reference page: what its fields declare."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from textwrap import fill
from typing import Any

from data.bounds import Field, Kind, fields_of, shown, words

_WIDTH = 100


@dataclass(frozen=True)
class Section:
    """The keys of one dataclass of a schema; ``path`` stands before each, as in ``optim.``."""

    path: str
    schema: type
    sentence: str
    fields: tuple[Field, ...]


def sections(schema: type, path: str = "", sentence: str = "") -> Iterator[Section]:
    """Yield a schema's own keys and then those of its sections, in the order of declaration."""
    fields = fields_of(schema)
    said = sentence or (schema.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    own = tuple(f for f in fields if not f.is_section)
    yield Section(path, schema, " ".join(said.split()), own)
    for field in fields:
        if field.is_section:
            yield from sections(field.kind.type, f"{path}{field.name}.", field.sentence)
        elif field.kind.item is not None and _is_schema(field.kind.item):
            yield from sections(field.kind.item.type, f"{path}{field.name}[N].")


def key_lines(section: Section) -> str:
    """Return the keys of a section as lines of text: key, type, default, bounds and sentence."""
    return "\n".join(_entry(section.path, field) for field in section.fields)


def all_lines(schema: type, path: str = "") -> str:
    """Return all keys of a schema, section by section; ``path`` stands before each."""
    parts = []
    for part in sections(schema, path):
        title = part.path.rstrip(".") or part.schema.__name__
        parts.append(f"{title}: {part.sentence}\n{key_lines(part)}")
    return "\n\n".join(parts) + "\n"


def markdown_table(section: Section) -> str:
    """Return the keys of a section as a table in Markdown."""
    rows = [["key", "type", "default", "bounds", "meaning"], ["---"] * 5]
    for field in section.fields:
        key, default = f"`{section.path}{field.name}`", shown(field.default)
        default = default and f"`{default}`"
        rows.append([key, type_name(field.kind), default, limits(field), field.sentence])
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows
    )


def type_name(kind: Kind) -> str:
    """Return a type as people write it: ``int``, ``list[float]``, ``choice``."""
    if kind.item is not None:
        inner = type_name(kind.item)
        return f"dict[{inner}]" if kind.type.__origin__ is dict else f"list[{inner}]"
    if _is_schema(kind):
        return "keys"
    return "choice" if issubclass(kind.type, Enum) else str(kind.type.__name__)


def limits(field: Field) -> str:
    """Return what values a field takes, in words; empty where its type says it all."""
    kind = field.kind
    while kind.item is not None:
        kind = kind.item
    if not _is_schema(kind) and issubclass(kind.type, Enum):
        return f"one of {', '.join(str(choice.value) for choice in kind.type)}"
    return words(field.kind)


def _entry(path: str, field: Field) -> str:
    allowed = limits(field)
    head = f"    {path}{field.name}={shown(field.default)}  ({type_name(field.kind)}"
    head += f": {allowed})" if allowed else ")"
    indent = " " * 8
    said = fill(field.sentence, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{head}\n{said}" if said else head


def _is_schema(kind: Kind) -> bool:
    return hasattr(kind.type, "__dataclass_fields__")


def guess(word: str, known: Iterable[Any]) -> str:
    """Return ``Did you mean X? `` where a wrong word is like a known one, else nothing."""
    near = difflib.get_close_matches(word, list(map(str, known)), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}? " if near else ""


def meant(word: str, known: Iterable[Any]) -> str:
    """Return which of the known words a wrong one may stand for, and all that are allowed."""
    names = sorted(map(str, known))
    return f"{guess(word, names)}Allowed: {', '.join(names)}."
