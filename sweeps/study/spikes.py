"""How many runs of a study spiked: a validation well above the one before and the one after it.

A run's average of weights forgets a spike, so its last loss may not show it; the recipe's rate or
clip is to blame, and where one spiked its neighbours in a law may have been hurt.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data.words import counted

ABOVE = 0.03  # of its neighbours
MOST = 0.02  # of the runs: one in fifty


def spiked(losses: Sequence[float]) -> bool:
    """Tell whether a validation lies more than 3 % above both of its neighbours in time."""
    middle = range(1, len(losses) - 1)
    return any(losses[i] > (1 + ABOVE) * max(losses[i - 1], losses[i + 1]) for i in middle)


def spikes_in(curves: Mapping[str, Sequence[float]]) -> tuple[list[str], int]:
    """Return the runs that spiked, and how many have three validations, so that one could show."""
    known = {name: losses for name, losses in curves.items() if len(losses) > 2}
    return [name for name, losses in known.items() if spiked(losses)], len(known)


def spikes_said(names: Sequence[str], known: int) -> str:
    """Say how many runs spiked."""
    which = f", e.g. {names[0]}" if names else ""
    return (
        f"{len(names)} of {counted(known, 'run')} had a validation more than {ABOVE:.0%} above its "
        f"neighbours{which}; the bar is one in {1 / MOST:.0f}."
    )


def losses_of(folders: Iterable[Path]) -> dict[str, list[float]]:
    """Return the validation losses of finished runs' curves, in the order of their steps."""
    found = {}
    for folder in folders:
        path = folder / "curve.csv"
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as stream:
                losses = [float(row.get("loss") or "nan") for row in csv.DictReader(stream)]
            found[folder.name] = [loss for loss in losses if math.isfinite(loss)]
    return found
