"""What a test of a jump says: a number with its interval, and a verdict in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Finding:
    """One answer.

    test: its name. value, low, high: the number and its 95 % interval, nan where it has none.
    unit: what the number counts. p: of the hypothesis that the verdict would reject, nan without
    one. verdict: in words.
    """

    test: str
    value: float
    low: float
    high: float
    unit: str
    p: float
    verdict: str


def arrays(least: int, **columns: Sequence[float] | Array) -> list[Array]:
    """Return columns of one length as arrays.

    Raises ValueError on fewer than ``least`` values, on columns of other lengths, and on values
    that are not finite.
    """
    found = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    first = next(iter(found))
    for name, values in found.items():
        if values.ndim != 1 or len(values) < least:
            raise ValueError(f"{name}={len(values)}: must be at least {least} values. Add some.")
        if len(values) != len(found[first]):
            raise ValueError(
                f"{name}={len(values)} values: must be as many as {first}, {len(found[first])}. "
                "Give one for each."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: holds values that are no numbers. Leave those out.")
    return list(found.values())


def check_rising(budgets: Array) -> None:
    """Raise ValueError unless budgets are positive and rise."""
    if (budgets <= 0).any() or (np.diff(budgets) <= 0).any():
        raise ValueError(f"budgets={budgets.tolist()}: must be positive and rise. Sort them.")


def check_errors(errors: Array) -> None:
    """Raise ValueError unless standard errors are positive."""
    if (errors <= 0).any():
        raise ValueError("errors: must be positive. Measure more seeds or pairs.")
