"""What all commands share: help, errors, a reader that leaves, Ctrl-C. Standard library alone.

A command is a function of its words that returns an exit status, and the docstring that teaches it:

    @command(__doc__, kept="finished parts are kept; the same command goes on")
    def main(arguments: list[str]) -> int: ...

    if __name__ == "__main__":
        main.run()

Exit statuses: 0, what ``main`` returns, 2 for what a user can mend (one line on stderr), 130 after
Ctrl-C. Any other exception is a bug and shows its traceback.
"""

import argparse
import ast
import errno
import importlib.util
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from data.notices import doing
from data.secrets import masked

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
NOTHING_KEPT = "nothing was written. Run the same command again."
_FLAGS = {"-h", "--help"}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a user can mend, by the system's number of the error.
_RULES = {
    errno.ENOENT: "does not exist, or cannot be made there. Check the path.",
    errno.EACCES: "may not be used by you. Choose another place, or change its permissions.",
    errno.EPERM: "may not be used by you. Choose another place, or change its permissions.",
    errno.EROFS: "cannot be written: its disk is read-only. Choose another place.",
    errno.EEXIST: "is in the way. Choose another path, or move it.",
    errno.ENOTDIR: "lies below a file, where a folder is needed. Choose another path.",
    errno.EISDIR: "is a folder, but must be a file. Name a file.",
    errno.ENOSPC: "the disk is full. Free some space, then run the same command again.",
    errno.EDQUOT: "your share of the disk is full. Free some, then run the same command again.",
    errno.EFBIG: "no file may become so large (ulimit -f). Raise that, then run the same command.",
    errno.ENAMETOOLONG: "has a name that is too long. Choose a shorter one.",
    errno.ELOOP: "is a link that leads to itself. Choose another path.",
}


class Refused(RuntimeError):
    """What a user can mend, or wait for, but that is no wrong value: told in one line."""


class OptionParser(argparse.ArgumentParser):
    """Parse ``--flags`` for a command whose docstring is its help.

    Mistakes raise ValueError, as everywhere.
    """

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with the remedy."""
        raise ValueError(f"{message}. See --help.")


@dataclass(frozen=True)
class Command:
    """A command line: what it does, and what it says when it does not.

    work: given the words, returns the exit status; raises ValueError("key=value: rule. remedy").
    doc: the module's docstring, which teaches. keys: the schema of its ``key=value`` words.
    also: returns further lines of help.
    kept: what an interrupted command leaves, and how to go on.
    prints_only: writes no file, or all of them before it prints: ends at once when its reader does.
    needs_words: without any it shows its help.
    inner: first words that are commands with a help of their own.
    doing: what is said while it works, once that lasts (data/notices.py); '' where the work itself
    says what it does.
    """

    work: Callable[[list[str]], int]
    doc: str
    keys: type | None = None
    also: Callable[[], str] | None = None
    kept: str = NOTHING_KEPT
    prints_only: bool = False
    needs_words: bool = True
    inner: tuple[str, ...] = ()
    doing: str = ""

    def help(self) -> str:
        """Return the docstring, the keys of the schema, and what else there is to choose from."""
        parts = [self.doc.strip()]
        if self.keys is not None:
            from data.command_line import help_text  # needs OmegaConf

            parts.append(f"Keys:\n{help_text(self.keys)}")
        if self.also is not None:
            parts.append(self.also().rstrip())
        return "\n\n".join(parts)

    def __call__(self, arguments: Sequence[str], as_rank: bool = False) -> int:
        """Do the work, or say in one line on stderr why not; return the exit status.

        as_rank: errors of the system are raised, for the starter of a group to record.
        """
        words = list(arguments)
        if asks_for_help(words, self.inner):
            print(self.help())
            return 0
        if not words and self.needs_words:
            print(self.help(), file=sys.stderr)
            return USER_ERROR
        try:
            with doing(self.doing) if self.doing else nullcontext():
                return self.work(words)
        except (ValueError, Refused) as error:
            print(f"error: {masked(explain(error), os.environ)}", file=sys.stderr)
            return USER_ERROR
        except OSError as error:
            text = explain_system(error)
            if text is None or as_rank:
                raise
            print(f"error: {masked(text, os.environ)}", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            print(f"interrupted: {self.kept}", file=sys.stderr)
            return INTERRUPTED

    def run(self, arguments: Sequence[str] | None = None) -> NoReturn:
        """Be this process: do the work and exit. arguments: those of the process when None."""
        words = sys.argv[1:] if arguments is None else list(arguments)
        if is_rank():
            raise SystemExit(self(words, as_rank=True))
        outlive_readers(self.prints_only)
        status = flushed(self(words))
        leave_at_once("", status)  # what exit hooks do is not worth a traceback
        raise SystemExit(status)


def command(
    doc: str | None,
    *,
    keys: type | None = None,
    also: Callable[[], str] | None = None,
    kept: str = NOTHING_KEPT,
    prints_only: bool = False,
    needs_words: bool = True,
    inner: tuple[str, ...] = (),
    doing: str = "",
) -> Callable[[Callable[[list[str]], int]], Command]:
    """Make a command of a function; see :class:`Command` for what is given."""
    assert doc, "a command teaches by its module's docstring"

    def wrap(work: Callable[[list[str]], int]) -> Command:
        return Command(work, doc, keys, also, kept, prints_only, needs_words, inner, doing)

    return wrap


def asks_for_help(words: Sequence[str], inner: Sequence[str] = ()) -> bool:
    """Tell whether words ask for a command's help."""
    if words and words[0] in inner:
        return False
    return bool(words) and (words[0] == "help" or not _FLAGS.isdisjoint(words))


def is_rank() -> bool:
    """Tell whether this process is one of a group: its starter reads how it ends."""
    return "RANK" in os.environ


def explain(error: Exception) -> str:
    """Return what a user reads of an error: its text; of a broken file what is broken there."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.doc[:40]!r}...: is no JSON ({error}). Mend the file that begins so."
    if isinstance(error, UnicodeDecodeError):
        return f"{error.object[:20]!r}...: is no text in UTF-8. Give another file."
    return str(error)


def explain_system(error: OSError) -> str | None:
    """Return ``PATH: rule. remedy`` for what a user can mend, None for anything else."""
    rule = _RULES.get(error.errno or 0)
    if rule is None:
        return None
    place = error.filename if error.filename is not None else error.filename2
    if place is None:
        return rule if error.errno in NO_ROOM else None
    text = os.fsdecode(place) if isinstance(place, str | bytes) else str(place)
    if error.errno == errno.EEXIST and Path(text).is_file():
        rule = "is a file. Choose another path, or move it."
    return f"{text}: {rule}"


class _Outlet(io.FileIO):
    """A stream of this process that goes on in silence once nobody reads it."""

    def write(self, data: Any, /) -> int:
        """Write bytes; return how many."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def outlive_readers(prints_only: bool) -> None:
    """Say nothing when a reader such as ``head`` leaves, and never fail over a character.

    A command that only prints ends then; another finishes its files in silence.
    """
    if prints_only:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # closed, or taken over by a test
            continue
        stream.flush()
        if prints_only:
            stream.reconfigure(errors="backslashreplace")
            continue
        outlet = io.BufferedWriter(_Outlet(stream.fileno(), "wb", closefd=False))
        lines = name == "stderr" or stream.isatty()
        setattr(sys, name, io.TextIOWrapper(
            outlet, encoding=stream.encoding, errors="backslashreplace", line_buffering=lines,
        ))  # fmt: skip


def flushed(status: int) -> int:
    """Write out what was printed; return the exit status, or that of a full disk."""
    try:
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # the interpreter flushes once more
        if isinstance(error, BrokenPipeError):
            return status
        error.filename = "standard output"
        print(f"error: {explain_system(error) or error}", file=sys.stderr)
        return USER_ERROR
    return status


def leave_at_once(words: str, status: int = INTERRUPTED) -> None:
    """Let Ctrl-C end this process from now on, with a line but without a traceback.

    For times in which nothing can be lost: while modules are imported, and after the work.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return  # started by nohup or in the background: it stays deaf

    def leave(number: int, frame: FrameType | None) -> None:
        if words:
            os.write(2, f"interrupted: {words}\n".encode())
        os._exit(status)

    signal.signal(signal.SIGINT, leave)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Start children inside which Ctrl-C does not reach: this process decides when they end.

    Blocked signals are inherited, so that not even their imports are interrupted.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_module(module: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Be the process of a module's command; its imports are interrupted without a traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    before = signal.getsignal(signal.SIGINT)
    leave_at_once("nothing had begun. Run the same command again.")
    text = quick_help(module) if asks_for_help(words) else ""
    if text:
        outlive_readers(prints_only=True)
        print(text.strip())
        raise SystemExit(flushed(0))
    with doing("importing libraries"):
        main: Command = import_module(module).main
    signal.signal(signal.SIGINT, before)
    main.run(words)


def quick_help(module: str) -> str:
    """Return a module's docstring without importing it; '' where its help holds more than that."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            calls = [made for made in node.decorator_list if isinstance(made, ast.Call)]
            given = {keyword.arg for call in calls for keyword in call.keywords}
            if calls and not given & {"keys", "also", "inner"}:
                return ast.get_docstring(tree, clean=False) or ""
    return ""
