"""Which rows a fit may use, and why not the others."""

import math
from collections.abc import Sequence

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form, Rows
from sweeps.fit.rows.runs import Run
from sweeps.fit.words import counted

# Twice the loss of a run with no more parameters and no more tokens is a diverged run: the largest
# reversal from an untuned recipe in the pilot (DESIGN section 5) was 1.5.
DIVERGED_FACTOR = 2.0
REPEATED = 1.01  # times its unique tokens: less is the rounding of a pass
SIZES = ("params", "params_active", "tokens", "width", "depth")


def check_columns(form: Form, columns: Columns, target: Array, num_fixed: int = 0) -> None:
    """Raise ValueError where no law can come of the columns: too few runs, swapped columns."""
    if not len(target):
        raise ValueError("table=: no row is left to fit. Exclude fewer.")
    distinct = len(np.unique(np.stack([columns[c] for c in form.columns], 1), axis=0))
    needed = len(form.parameters) - num_fixed
    # Least squares through as many runs as coefficients leave nothing to judge the fit by; one more
    # is the least.
    if distinct <= needed:
        keys = ", ".join(form.columns)
        raise ValueError(
            f"runs={distinct}: form={form.name} has {needed} coefficients and needs at least "
            f"{needed + 1} runs at distinct ({keys}). Add runs."
        )
    for name in ("params", "tokens", "flops"):
        column = columns.get(name)
        if column is not None and np.median(column) < np.median(target):
            raise ValueError(
                f"{name} has median {np.median(column):.4g} and {form.target} "
                f"{np.median(target):.4g}: {name} must be the larger; the columns look swapped. "
                f"Set {name}=COLUMN and {form.target}=COLUMN to the right ones."
            )
    active, total = (columns.get(c) for c in ("params_active", "params_total"))
    if active is not None and total is not None and np.any(total < active):
        raise ValueError(
            "params_total=: is below params_active in "
            f"{counted(int(np.sum(total < active)), 'row')}: a token cannot see more than there "
            "is. Set columns.params_total=COLUMN to the right one."
        )
    _check_flops(columns)
    _check_repeats(columns)


def _check_repeats(columns: Columns) -> None:
    """Raise ValueError where no run sees a token twice: swapped columns, or no repeats."""
    if "unique_tokens" not in columns:
        return
    tokens, unique = columns["tokens"], columns["unique_tokens"]
    if not (tokens > REPEATED * unique).any():
        fewer = int(np.sum(unique > REPEATED * tokens))
        swapped = f" More unique tokens than tokens: {counted(fewer, 'run')}, as if swapped."
        raise ValueError(
            "unique_tokens=: no run sees a token twice (tokens above unique_tokens), so that what "
            f"repeats are worth cannot be known.{swapped * bool(fewer)} Set columns.tokens=COLUMN "
            "and columns.unique_tokens=COLUMN to the right ones, or use form=chinchilla."
        )


def _check_flops(columns: Columns) -> None:
    """Raise ValueError where compute is less than what it was spent on: swapped columns."""
    if "flops" not in columns:
        return
    spent = float(np.median(columns["flops"]))
    for name in ("params", "tokens"):
        if name in columns and spent < np.median(columns[name]):
            raise ValueError(
                f"flops has median {spent:.4g} and {name} {np.median(columns[name]):.4g}: flops "
                "must be the larger; the columns look swapped, or flops is in another unit. Set "
                f"columns.flops=COLUMN and columns.{name}=COLUMN to the right ones."
            )


def excluded_reasons(columns: Columns, loss: Array) -> list[str | None]:
    """Return for each run why it cannot be fitted (non-finite or diverged), or None.

    A run is compared with those that are no larger in any column that loss falls with.
    """
    reasons: list[str | None] = []
    finite = np.isfinite(loss)
    sizes = [columns[c] for c in SIZES if c in columns]
    if "unique_tokens" in columns or not sizes:  # repeats may make loss rise: nothing to judge by
        return [None if f else _not_finite(v) for f, v in zip(finite, loss, strict=True)]
    for i in range(len(loss)):
        below = finite.copy()
        for size in sizes:
            below &= size <= size[i]
        below[i] = False
        best = float(np.min(loss[below])) if below.any() else math.inf
        if not finite[i]:
            reasons.append(_not_finite(loss[i]))
        elif loss[i] > DIVERGED_FACTOR * best:
            reasons.append(
                f"diverged: loss {loss[i]:.4g} is {loss[i] / best:.1f} times that of a run with "
                "no more parameters and no more tokens"
            )
        else:
            reasons.append(None)
    return reasons


def near_best(
    runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]], within: float
) -> tuple[list[Run], list[dict[str, str]]]:
    """Return the runs at most `within` above the best of their budget, and the others with why.

    Runs of no budget are kept.
    """
    far: dict[int, str] = {}
    for _, rows in budgets:
        best = min(runs[int(i)].loss for i in rows)
        for i in rows:
            if (above := runs[int(i)].loss / best - 1) > within:
                far[int(i)] = (
                    f"{100 * above:.2g} % above the best of its budget (within={within:g})"
                )
    left = [{"name": runs[i].name, "reason": why} for i, why in far.items()]
    return [run for i, run in enumerate(runs) if i not in far], left


def _not_finite(value: float) -> str:
    return f"loss is {value}: the run diverged or has not ended"
