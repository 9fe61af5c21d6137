"""The figures of a study: the law, its isoFLOP curves, its frontier, its residuals."""

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from data.words import counted
from sweeps.report.figures.breakdown import draw_breakdown
from sweeps.report.figures.exponents import draw_exponents
from sweeps.report.figures.panels import (
    budget_colors,
    column,
    intervals,
    plot_isoflop,
    plot_law,
    plot_minimum,
    tick_counts,
    tick_flops,
)
from sweeps.report.figures.svg import (
    INK,
    MUTED,
    PAPER,
    WIDTH,
    Drawing,
    Size,
    draw,
    figure_style,
    new_figure,
)
from sweeps.report.inputs.isoflop import Inputs
from sweeps.report.readings import frontier, isoflop_points, residuals, seed_spread
from sweeps.report.wording import format_flops

_AXES = ("params", "tokens"), ("parameters N", "tokens D")


def draw_all(inputs: Inputs) -> dict[str, Drawing]:
    """Return the figures whose inputs exist, by name."""
    if not inputs.grid_runs:
        return {}
    drawings = [
        draw("law", Size(WIDTH, 430), partial(_law_figure, inputs), _law_alt(inputs)),
        draw_isoflop(inputs),
    ]
    if frontier(inputs):
        drawings.append(draw_frontier(inputs))
    drawings += draw_residuals(inputs) + draw_exponents(inputs) + draw_breakdown(inputs)
    return {drawing.name: drawing for drawing in drawings}


def draw_isoflop(inputs: Inputs) -> Drawing:
    """Return the figure of the isoFLOP curves."""
    build = partial(_isoflop_figure, inputs)
    return draw("isoflop", Size(WIDTH, 400), build, _isoflop_alt(inputs))


def draw_frontier(inputs: Inputs) -> Drawing:
    """Return the figure of N* and D* over compute."""
    alt = "Compute-optimal parameters and tokens against compute, with intervals."
    return draw("frontier", Size(WIDTH, 350), partial(_frontier_figure, inputs), alt)


def draw_residuals(inputs: Inputs) -> list[Drawing]:
    """Return the figure of the residuals, if the law states any."""
    if not residuals(inputs):
        return []
    alt = "Log residuals of the fit against parameters and tokens, coloured by budget."
    return [draw("residuals", Size(WIDTH, 310), partial(_residual_figure, inputs), alt)]


def save_picture(inputs: Inputs, path: Path) -> None:
    """Write the picture of the law for a README: two panels, white background, PNG."""
    with figure_style():
        figure = new_figure(Size(1120, 460))
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        plot_law(left, inputs)
        left.set_title("Loss against compute")
        plot_isoflop(right, inputs)
        right.set_title("IsoFLOP curves")
        figure.savefig(path, dpi=144, facecolor="white")


def _law_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    plot_law(figure.subplots(), inputs)
    return figure


def _isoflop_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    plot_isoflop(figure.subplots(), inputs)
    return figure


def _frontier_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    panels = figure.subplots(1, 2)
    points = frontier(inputs)
    for axes, key, title in (
        (panels[0], "params", "N*(C): optimal parameters"),
        (panels[1], "tokens", "D*(C): optimal tokens"),
    ):
        flops, fitted = column(points, "flops"), column(points, key)
        low, high = intervals(points, key)
        axes.fill_between(flops, low, high, color=INK, alpha=0.13, lw=0)
        axes.plot(flops, fitted, color=INK, lw=2, label="from the law")
        for point in isoflop_points(inputs):
            plot_minimum(axes, inputs, point, key)
        axes.plot([], [], "o", color=MUTED, label="isoFLOP minimum")
        axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", title=title)
        tick_flops(axes)
        tick_counts(axes, "y")
        axes.legend(loc="upper left")
    return figure


def _residual_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    panels = figure.subplots(1, 2, sharey=True)
    found, colors = residuals(inputs), budget_colors(inputs)
    band = 200 * seed_spread(inputs)
    reach = 1.3 * max([band, *(abs(100 * item.residual) for item in found)]) or 1.0
    for axes, key, label in zip(panels, *_AXES, strict=True):
        if band:
            axes.axhspan(-band, band, color=INK, alpha=0.08, lw=0, label="± 2 σ of seeds")
        axes.axhline(0, color=MUTED, lw=1)
        for color in dict.fromkeys([*colors.values(), MUTED]):
            own = [item for item in found if colors.get(item.run.budget, MUTED) == color]
            axes.plot(
                [getattr(item.run, key) for item in own], [100 * item.residual for item in own],
                "o", ms=7, mfc=color, mec=PAPER, ls="",
            )  # fmt: skip
        axes.set(xscale="log", xlabel=label, ylim=(-reach, reach))
        tick_counts(axes)
    panels[0].set_ylabel("100 log(measured / fitted)")
    if band:
        panels[0].legend(loc="upper right")
    return figure


def _law_alt(inputs: Inputs) -> str:
    ends = f"{format_flops(inputs.budgets[0])} to {format_flops(inputs.budgets[-1])}"
    return (
        f"Validation loss against compute for {counted(len(inputs.grid_runs), 'run')} at "
        f"{counted(len(inputs.budgets), 'budget')} from {ends} FLOPs, the fitted frontier "
        "with its band, and the held-out budget with its prediction interval."
    )


def _isoflop_alt(inputs: Inputs) -> str:
    return (
        f"Validation loss against parameters at {counted(len(inputs.budgets), 'budget')}, with the "
        "fitted curve and the minimum of each."
    )
