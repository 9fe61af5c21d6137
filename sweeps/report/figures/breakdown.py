"""The figures of ``breakdown.py``: loss by noise level, and by kind of clip against compute."""

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from sweeps.report.figures.panels import budget_colors, tick_flops, tick_loss
from sweeps.report.figures.svg import INK, MUTED, WIDTH, Drawing, Size, draw, new_figure
from sweeps.report.inputs.isoflop import Inputs
from sweeps.report.tables.breakdown import Breakdown, breakdowns, by_time
from sweeps.report.wording import format_flops

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_breakdown(inputs: Inputs) -> list[Drawing]:
    """Return the figures whose values the runs recorded."""
    drawings = []
    if found := by_time(inputs):
        alt = f"Loss against noise level for the best run of {len(found)} budgets."
        drawings.append(draw("noise", Size(WIDTH, 340), partial(_noise, inputs, found), alt))
    if parted := breakdowns(inputs):
        groups = sum(len(breakdown.parts) for breakdown in parted)
        alt = f"Loss against compute by world, length and size of clips: {groups} groups."
        build = partial(_groups, inputs, parted)
        drawings.append(draw("groups", Size(WIDTH, 420), build, alt))
    return drawings


def _noise(inputs: Inputs, found: dict[float, list[float]], size: Size) -> Figure:
    figure = new_figure(size)
    axes, colors = figure.subplots(), budget_colors(inputs)
    for budget, losses in found.items():
        middles = [(i + 0.5) / len(losses) for i in range(len(losses))]
        label = format_flops(budget)
        axes.plot(middles, losses, "o-", ms=5, lw=1.6, color=colors[budget], label=label)
    axes.set(xlim=(0, 1), xlabel="t: 0 is noise, 1 is data", ylabel="validation loss", yscale="log")
    tick_loss(axes)
    axes.legend(title="FLOPs", loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
    return figure


def _groups(inputs: Inputs, parted: Sequence[Breakdown], size: Size) -> Figure:
    figure = new_figure(size)
    panels = figure.subplots(1, len(parted), sharey=True, squeeze=False)[0]
    for axes, breakdown in zip(panels, parted, strict=True):
        for number, (name, parts) in enumerate(breakdown.parts.items()):
            # Marks and grey levels tell groups apart: colours belong to budgets on this page.
            tone = INK if number % 2 == 0 else MUTED
            # A leading underscore would hide it from the legend, dollars would be mathematics.
            label = " " + name.replace("$", r"\$")
            losses = [part.loss for part in parts.values()]
            noise = [part.noise if math.isfinite(part.noise) else 0.0 for part in parts.values()]
            axes.errorbar(
                list(parts), losses, noise, fmt=_MARKS[number % len(_MARKS)] + "-", ms=6, lw=1.1,
                color=tone, label=label,
            )  # fmt: skip
        axes.set(
            xscale="log", yscale="log", xlabel="compute C (FLOPs)", title=f"by {breakdown.title}"
        )
        axes.set_xticks(inputs.budgets[:: max(1, len(inputs.budgets) // 3)])
        tick_flops(axes)
        tick_loss(axes)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=10, ncols=1, handlelength=1.4
        )
    panels[0].set_ylabel("validation loss")
    return figure
