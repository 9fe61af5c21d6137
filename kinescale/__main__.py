"""The command ``kinescale``: lists all commands, and runs the one that is named."""

import sys

from data.shell import USER_ERROR, asks_for_help, flushed, outlive_readers, run_module
from kinescale import __version__
from kinescale.commands import COMMANDS, map_of_commands
from launch.array import COMMANDS as ARRAYS
from launch.array import ENGINES, array_words

COMPLETION = "kinescale.completion"


def main() -> None:
    """Run the command that the process's words name; exits with its status."""
    name, *words = sys.argv[1:] or ["--help"]
    if name == "help" and words:  # kinescale help train
        name, words = words[0], ["--help"]
    if not set(words).isdisjoint(ENGINES) and name in ARRAYS:
        name, words = "array", [name, *array_words(words)]
    if name in COMMANDS:
        run_module(COMMANDS[name].module, words)
    if name == "completion":
        run_module(COMPLETION, words)
    outlive_readers(prints_only=True)
    if asks_for_help([name]):
        print(map_of_commands())
    elif name == "--version":
        print(f"kinescale {__version__}")
    else:
        from data.command_table import unknown_command

        print(f"error: {unknown_command(name, [*COMMANDS, 'completion'])}", file=sys.stderr)
        raise SystemExit(USER_ERROR)
    raise SystemExit(flushed(0))


if __name__ == "__main__":
    main()
