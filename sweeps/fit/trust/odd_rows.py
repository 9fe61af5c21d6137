"""Say what is odd about the rows of any table: duplicates, one size, losses that rise."""

from collections.abc import Iterator, Sequence

import numpy as np

from sweeps.fit.forms.base import Array
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.trust.identified import is_flat
from sweeps.fit.words import counted

SIZES = ("params", "tokens", "flops", "width", "depth")  # that loss should fall with


SHOWN = 3  # names in one sentence
# Tokens for each parameter: no run on record has fewer than 0.05; tokens in thousands or in
# billions make it 1e3 or 1e9 times smaller.
OTHER_UNIT = 2e-3


def warn_rows(fit: Fit, excluded: list[dict[str, str]], names: Sequence[str]) -> Iterator[str]:
    """Yield what is odd about the rows: excluded ones, duplicates, one size, losses that rise."""
    for run in excluded:
        yield f"Run {run['name']} is excluded: {run['reason']}."
    keys = ", ".join((*fit.form.columns, fit.form.target))
    rows = np.stack([*(fit.columns[c] for c in fit.form.columns), fit.target], axis=1)
    if pairs := repeats(rows):
        said = listed([f"{names[i]} of {names[first]}" for first, i in pairs])
        yield f"Exact duplicates ({keys}), {counted(len(pairs), 'run')}: {said}. Drop them."
    if is_flat(fit):
        yield (
            f"All runs have one {fit.form.target} ({fit.target[0]:.4g}): what it falls with "
            "cannot be known."
        )
    for column, words in (("params", "parameters"), ("tokens", "tokens"), ("flops", "compute")):
        if column in fit.form.columns and len(np.unique(fit.columns[column])) == 1:
            yield f"All runs have one size ({column}): how loss falls with {words} cannot be known."
    if {"params", "tokens"} <= set(fit.form.columns):
        ratio = float(np.median(fit.columns["tokens"] / fit.columns["params"]))
        if ratio < OTHER_UNIT:
            yield (
                f"The median run has {ratio:.2g} tokens for each parameter: params and tokens are "
                "in different units. Give both as plain counts (8.3e9, not 8.3 billions)."
            )
        elif ratio < 1:
            yield (
                f"The median run has {ratio:.2g} tokens for each parameter: the columns params and "
                "tokens look swapped."
            )
    yield from _warn_rising(fit)


def _warn_rising(fit: Fit) -> Iterator[str]:
    names = [c for c in fit.form.columns if c in SIZES and np.ptp(fit.columns[c]) > 0]
    if getattr(fit.form, "signed", False) or not names:
        return
    if "width" in names:  # width, depth and params depend on each other: no slope is one's own
        names = [n for n in names if n == "tokens"]
    columns = [np.ones(len(fit.target)), *(np.log(fit.columns[c]) for c in names)]
    slopes = np.linalg.lstsq(np.stack(columns, 1), np.log(fit.target), rcond=None)[0][1:]
    rising = [n for n, s in zip(names, slopes, strict=True) if s > 1e-9]
    if rising:
        yield (
            f"Loss rises with {' and with '.join(rising)} where the other is held fixed: "
            "columns swapped, runs unconverged, or an untuned recipe; the form cannot rise."
        )


def repeats(rows: Array) -> list[tuple[int, int]]:
    """Return (first, i) for every row i that equals an earlier one."""
    seen: dict[bytes, int] = {}
    found = []
    for i, row in enumerate(np.ascontiguousarray(rows)):
        first = seen.setdefault(row.tobytes(), i)
        if first != i:
            found.append((first, i))
    return found


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
