"""The project from outside: the command ``kinescale``, and what a script imports.

``from kinescale import fit_table, load_study, compose_run``; docs/python.md tells all names. Each
is imported from its room when it is first asked for, so that ``import kinescale`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.fit.law import fit_table, law_of_table
    from sweeps.fit.options import FitOptions
    from sweeps.fit.result import Law
    from sweeps.study.saved import SavedStudy, load_study
    from trainer.config import RunConfig, compose_run

__version__ = "0.1.0"
__all__ = [
    "FitOptions",
    "Law",
    "RunConfig",
    "SavedStudy",
    "compose_run",
    "fit_table",
    "law_of_table",
    "load_study",
]
_ROOMS = {
    "FitOptions": "sweeps.fit.options",
    "Law": "sweeps.fit.result",
    "RunConfig": "trainer.config",
    "SavedStudy": "sweeps.study.saved",
    "compose_run": "trainer.config",
    "fit_table": "sweeps.fit.law",
    "law_of_table": "sweeps.fit.law",
    "load_study": "sweeps.study.saved",
}


def __getattr__(name: str) -> Any:
    """Return a name of the surface, imported now. Raises AttributeError for any other."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'kinescale' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    """Return what there is, imported or not."""
    return sorted({*globals(), *__all__})
