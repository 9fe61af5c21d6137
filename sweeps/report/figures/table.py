"""The figures of the page of a table: every run, the law with its bands, the record of methods."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.report.figures.exponents import draw_exponents
from sweeps.report.figures.law import draw_frontier, draw_isoflop, draw_residuals
from sweeps.report.figures.panels import (
    budget_colors,
    column,
    intervals,
    plot_held_out,
    tick_flops,
    tick_loss,
)
from sweeps.report.figures.svg import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    WIDTH,
    Drawing,
    Size,
    draw,
    new_figure,
)
from sweeps.report.inputs.isoflop import Json, Run, mapping, records, to_number
from sweeps.report.inputs.table import TableInputs
from sweeps.report.tables.forecast import method_of
from sweeps.report.wording import level_text

_ROW = 26  # CSS pixels of a method


def draw_table(table: TableInputs) -> dict[str, Drawing]:
    """Return the figures whose inputs exist, by name."""
    inputs = replace(table.inputs, law=table.inputs.law | {"frontier": table.dense})
    alt = (
        f"Loss against compute for {len(inputs.grid_runs)} runs, with the least loss of each "
        "compute by the law, its band, and its continuation to ten times the largest run."
    )
    drawings = [draw("law", Size(WIDTH, 430), partial(_law, table), alt)]
    if inputs.budgets:
        drawings.append(draw_isoflop(inputs))
    drawings += [draw_frontier(inputs), *draw_residuals(inputs), *draw_exponents(inputs)]
    if methods := _methods(table):
        alt = f"Mean error of {len(methods)} methods that foresaw the budgets so far."
        size = Size(WIDTH, 70 + _ROW * len(methods))
        drawings.append(draw("methods", size, partial(_record, table, methods), alt))
    return {drawing.name: drawing for drawing in drawings}


def _law(table: TableInputs, size: Size) -> Figure:
    figure = new_figure(size)
    axes = figure.subplots()
    runs, colors = table.inputs.grid_runs, budget_colors(table.inputs)
    for color in dict.fromkeys([*colors.values(), MUTED]):
        own = [run for run in runs if colors.get(run.budget, MUTED) == color]
        axes.plot(
            [run.flops for run in own], [run.loss for run in own], "o", ms=5, mfc=color, mec=PAPER,
            mew=0.6, ls="", zorder=2,
        )  # fmt: skip
    _frontier(axes, table)
    plot_held_out(axes, table.inputs)
    axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="loss")
    _limit(axes, table, runs)
    tick_flops(axes)
    tick_loss(axes)
    axes.legend(loc="upper right", handlelength=1.8)
    return figure


def _frontier(axes: Axes, table: TableInputs) -> None:
    """Draw the least loss and its band, dashed where no run reaches."""
    points = table.dense
    flops, loss = column(points, "flops"), column(points, "loss")
    inside = column(points, "extrapolation_factor") <= 1.0 + 1e-9
    axes.fill_between(
        flops, *intervals(points, "loss"), color=INK, alpha=0.13, lw=0, zorder=3,
        label=f"{level_text(table.inputs)} interval",
    )  # fmt: skip
    last = int(np.sum(inside))
    axes.plot(flops[:last], loss[:last], color=INK, lw=2, zorder=4, label="least loss")
    axes.plot(
        flops[max(last - 1, 0) :], loss[max(last - 1, 0) :], color=INK, lw=1.6, ls=(0, (4, 3)),
        zorder=4, label="beyond the runs",
    )  # fmt: skip


def _limit(axes: Axes, table: TableInputs, runs: Sequence[Run]) -> None:
    """Show runs and band, without the worst twentieth of the runs where they are far away."""
    losses = np.array([run.loss for run in runs])
    low, high = intervals(table.dense, "loss")
    least = min(float(losses.min()), float(np.nanmin(low)))
    most = max(float(np.quantile(losses, 0.95)), min(float(np.nanmax(high)), float(losses.max())))
    axes.set_ylim(least * 0.9, most * 1.08)  # room for what was held out, below the line
    flops = column(table.dense, "flops")
    axes.set_xlim(flops[0] / 1.5, flops[-1] * 1.3)


def _methods(table: TableInputs) -> list[Json]:
    return [
        record for record in records(table.inputs.law.get("rolling_origin"))
        if to_number(record.get("mean_absolute_error")) > 0
    ]  # fmt: skip


def _record(table: TableInputs, methods: Sequence[Json], size: Size) -> Figure:
    """Draw the mean error of each method, and its worst; what tells the loss stands out."""
    figure = new_figure(size)
    axes = figure.subplots()
    teller = mapping(table.inputs.law.get("choice")).get("loss_by")
    for place, record in enumerate(methods):
        mean = 100 * to_number(record.get("mean_absolute_error"))
        worst = 100 * abs(to_number(record.get("worst")))
        color = ACCENT if record.get("method") == teller else MUTED
        if math.isfinite(worst):
            axes.plot([mean, worst], [place, place], color=color, lw=1.6, zorder=2)
            axes.plot(worst, place, "|", ms=9, mew=1.6, color=color, zorder=2)
        axes.plot(mean, place, "o", ms=8, color=color, mec=PAPER, zorder=3)
    axes.set_yticks(range(len(methods)), [method_of(r.get("method")) for r in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("error of the best loss (%): dot the mean, tick the worst")
    return figure
