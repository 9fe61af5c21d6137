"""The console of tables."""

import sys

from rich.console import Console

WIDTH = 128  # of what is no terminal: rich would fold tables to 80 columns


def wide_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for tables in a file or pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)
