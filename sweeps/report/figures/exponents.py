"""Figures of the exponents."""

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from sweeps.report.figures.svg import ACCENT, INK, MUTED, WIDTH, Drawing, Size, draw, new_figure
from sweeps.report.inputs.isoflop import Inputs
from sweeps.report.tables.exponents import OURS, PUBLISHED, Exponent, own_exponents


def draw_exponents(inputs: Inputs) -> list[Drawing]:
    """Return the figure of the exponents, if there is any."""
    rows = [item for item in own_exponents(inputs) if math.isfinite(item.value)]
    if not rows:
        return []
    rows += PUBLISHED
    alt = f"Exponent of N* in compute: {len(rows) - len(PUBLISHED)} of {OURS} with intervals, "
    alt += f"beside {len(PUBLISHED)} published ones between .36 and .73."
    size = Size(WIDTH, 70 + 25 * len(rows))
    return [draw("exponents", size, partial(_figure, rows), alt)]


def _figure(rows: Sequence[Exponent], size: Size) -> Figure:
    figure = new_figure(size)
    axes = figure.subplots()
    for place, item in enumerate(rows):
        color = ACCENT if item not in PUBLISHED else MUTED
        if math.isfinite(item.low + item.high):
            axes.plot([item.low, item.high], [place, place], color=color, lw=2.2, zorder=2)
        axes.plot(item.value, place, "o", ms=7, color=color, zorder=3)
    axes.axvline(0.5, color=INK, lw=0.8, ls=(0, (2, 3)), zorder=1)
    labels = [i.label if i in PUBLISHED else f"{OURS}, {i.what}" for i in rows]
    kinds = [f" ({i.what})" if i in PUBLISHED else "" for i in rows]
    axes.set_yticks(range(len(rows)), [a + b for a, b in zip(labels, kinds, strict=True)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(min(0.1, *(i.low for i in rows if i.low > -1)), None)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("exponent a of N* ∝ Cᵃ")
    return figure
