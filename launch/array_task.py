"""One task of an array: run a command in this process, and mark its end.

usage (by launch.array): python -m launch.array_task MARKER MODULE WORD ...
"""

import sys
from importlib import import_module
from pathlib import Path

from data.files import write_json


def main(argv: list[str]) -> int:
    """Run the command; the marker is there once it has ended well."""
    marker, module, *words = argv
    status: int = import_module(module).main(words)
    if status == 0:
        write_json(Path(marker), {"words": words})
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
