"""Tables of commands: what ``kinescale`` and ``python -m ROOM`` list and run."""

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from data.shell import USER_ERROR, asks_for_help, flushed, outlive_readers, run_module


@dataclass(frozen=True)
class Row:
    """A command in its room's table.

    name: what is typed after ``kinescale``. module: has it as ``main``. line: what it does.
    schema: ``module:Class`` of its keys, groups: folders whose files are choices, as
    ``sweeps/conf``; both serve the completion of shells.
    """

    name: str
    module: str
    line: str
    schema: str = ""
    groups: tuple[str, ...] = ()


def listing(rows: Iterable[Row], width: int) -> str:
    """Return one line a command, with names in a column of ``width`` characters."""
    return "\n".join(f"  {row.name:<{width}}  {row.line}" for row in rows)


def unknown_command(name: str, known: Iterable[str]) -> str:
    """Return what to say of a command that there is not, with those that look like it."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.7)
    meant = f"Did you mean {' or '.join(near)}?" if near else "Run kinescale for the list."
    return f"{name}: is no command. {meant}"


def run_room(says: str | None, rows: Sequence[Row]) -> NoReturn:
    """Be ``python -m ROOM``: list the room's commands, or run the one that is named."""
    name, *words = sys.argv[1:] or ["help"]
    modules = {row.name: row.module for row in rows}
    if name in modules:
        run_module(modules[name], words)
    if not asks_for_help([name]):
        print(f"error: {unknown_command(name, modules)}", file=sys.stderr)
        raise SystemExit(USER_ERROR)
    outlive_readers(prints_only=True)
    print(f"{(says or '').strip()}\n\nusage: kinescale COMMAND [--help]\n")
    print(listing(rows, max(map(len, modules))))
    raise SystemExit(flushed(0))
