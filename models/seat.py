"""Members of a folder of one file each, found by name: architectures and objectives.

The folder is the table: a new file is a new choice. A name with dots is a module of one's own, so
that an experiment outside of this package needs no line in it. Such a module is imported only where
KINESCALE_PLUGINS names its package: a run's config may come from somebody else.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PLUGINS = "KINESCALE_PLUGINS"  # packages of one's own, separated by commas


def member_names(package: str) -> list[str]:
    """Return the choices that come with this package."""
    folder = Path(__file__).parents[1].joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def member(key: str, name: str, package: str, attribute: str) -> object:
    """Return what a member's module holds; raise ValueError about ``key`` with the remedy."""
    own = "." in name and all(part.isidentifier() for part in name.split("."))
    if not own and name not in member_names(package):
        allowed = ", ".join(member_names(package))
        raise ValueError(
            f"{key}={name}: is not known. Use one of {allowed}, or a module of your own, named "
            "with dots."
        )
    top = name.split(".")[0]
    if own and top not in os.environ.get(PLUGINS, "").split(","):
        raise ValueError(
            f"{key}={name}: is a module of your own, which only the environment may allow. "
            f"Use export {PLUGINS}={top}."
        )
    path = name if own else f"{package}.{name}"
    if not _exists(path):
        raise ValueError(
            f"{key}={name}: there is no such module. Put the folder it lies in into PYTHONPATH."
        )
    found = getattr(import_module(path), attribute, None)
    if found is None:
        raise ValueError(f"{key}={name}: the module holds no {attribute}. See models/README.md.")
    return found


def _exists(path: str) -> bool:
    try:
        return find_spec(path) is not None
    except ModuleNotFoundError:  # a package on the way to it
        return False
