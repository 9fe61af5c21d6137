"""The figures of a study: the law, its isoFLOP curves, its frontier, its residuals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from sweeps.report.inputs import (
    Inputs,
    mapping,
    to_number,
)
from sweeps.report.panels import (
    budget_colors,
    column,
    frontier,
    intervals,
    isoflop_points,
    plot_isoflop,
    plot_law,
    plot_minimum,
    residuals,
    tick_counts,
    tick_flops,
)
from sweeps.report.svg import (
    INK,
    MUTED,
    PAPER,
    Size,
    figure_style,
    new_figure,
    svg_text,
)
from sweeps.report.wording import format_flops

# Two drawings of each: text in a drawing scaled down to a phone would be unreadable.
_WIDE, _NARROW = 1040, 372


@dataclass(frozen=True)
class Drawing:
    """One figure in its two sizes, with the sentence a screen reader gets."""

    name: str
    alt: str
    wide: str
    narrow: str


def draw_all(inputs: Inputs) -> dict[str, Drawing]:
    """Return the figures whose inputs exist, by name."""
    if not inputs.grid_runs:
        return {}
    drawings = {
        "law": _draw(inputs, "law", _law_figure, 500, 400, _law_alt(inputs)),
        "isoflop": _draw(inputs, "isoflop", _isoflop_figure, 440, 380, _isoflop_alt(inputs)),
    }
    if frontier(inputs):
        alt = "Compute-optimal parameters and tokens against compute, with intervals."
        drawings["frontier"] = _draw(inputs, "frontier", _frontier_figure, 380, 620, alt)
    if residuals(inputs):
        alt = "Residuals of the fit in per cent against parameters, coloured by budget."
        drawings["residuals"] = _draw(inputs, "residuals", _residual_figure, 320, 300, alt)
    return drawings


def save_picture(inputs: Inputs, path: Path) -> None:
    """Write the picture of the law for a README: two panels, white background, PNG."""
    with figure_style():
        figure = new_figure(Size(1120, 460))
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        plot_law(left, inputs, compact=False)
        left.set_title("Loss against compute")
        plot_isoflop(right, inputs, compact=False)
        right.set_title("IsoFLOP curves")
        figure.savefig(path, dpi=144, facecolor="white")


def _draw(
    inputs: Inputs,
    name: str,
    build: Callable[[Inputs, Size], Figure],
    wide_height: int,
    narrow_height: int,
    alt: str,
) -> Drawing:
    with figure_style():
        wide, narrow = (
            svg_text(build(inputs, size), f"{name}-{size.width}")
            for size in (Size(_WIDE, wide_height), Size(_NARROW, narrow_height))
        )
    return Drawing(name, alt, wide, narrow)


def _is_narrow(size: Size) -> bool:
    return size.width <= _NARROW


def _law_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    plot_law(figure.subplots(), inputs, compact=_is_narrow(size))
    return figure


def _isoflop_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    plot_isoflop(figure.subplots(), inputs, compact=_is_narrow(size))
    return figure


def _frontier_figure(inputs: Inputs, size: Size) -> Figure:
    figure = new_figure(size)
    shape = (2, 1) if _is_narrow(size) else (1, 2)
    panels = figure.subplots(*shape)
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
    axes, colors = figure.subplots(), budget_colors(inputs)
    noise = to_number(mapping(inputs.study.get("seeds_noise")).get("std"))
    mean = to_number(mapping(inputs.study.get("seeds_noise")).get("mean"))
    band = 200 * noise / mean if noise > 0 and mean > 0 else 0.0
    if band:
        axes.axhspan(-band, band, color=INK, alpha=0.08, lw=0, label="± 2 σ of seeds")
        axes.legend(loc="upper right")
    axes.axhline(0, color=MUTED, lw=1)
    for params, residual, budget in residuals(inputs):
        axes.plot(
            params, 100 * residual, "o", ms=7, mfc=colors.get(budget, MUTED), mec=PAPER, ls=""
        )
    reach = 1.3 * max([band, *(abs(100 * residual) for _, residual, _ in residuals(inputs))])
    axes.set(xscale="log", xlabel="parameters N", ylabel="measured − fitted (%)")
    axes.set_ylim(-reach or -1.0, reach or 1.0)
    tick_counts(axes)
    return figure


def _law_alt(inputs: Inputs) -> str:
    ends = f"{format_flops(inputs.budgets[0])} to {format_flops(inputs.budgets[-1])}"
    return (
        f"Validation loss against compute for {len(inputs.grid_runs)} runs at "
        f"{len(inputs.budgets)} budgets from {ends} FLOPs, the fitted frontier with its band, "
        "and the held-out budget with its prediction interval."
    )


def _isoflop_alt(inputs: Inputs) -> str:
    return (
        f"Validation loss against parameters at {len(inputs.budgets)} budgets, with the fitted "
        "curve and the minimum of each."
    )
