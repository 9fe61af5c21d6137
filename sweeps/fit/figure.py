"""A law as one picture: the budgets' valleys, and the frontier with its band and its runs."""

from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from sweeps.fit.bands import Drawn, bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT = "#333333", "#b3402a"


def draw_law(law: Drawn) -> str:
    """Return the picture as the text of an SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # a third of a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _valleys(left, law)
    _frontier(right, law)
    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text)
    return text.getvalue()


def _valleys(axes: "Axes", law: Drawn) -> None:
    """Draw loss over parameters, a line a budget through the means over seeds, and its minimum."""
    from matplotlib import colormaps

    params = np.array([run.params for run in law.runs])
    loss = np.array([run.loss for run in law.runs])
    shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(law.budgets), 1)))
    if not law.budgets:
        axes.plot(params, loss, ".", color=INK)
    for (compute, rows), shade in zip(law.budgets, shades, strict=False):
        sizes, which = np.unique(params[rows], return_inverse=True)
        means = np.bincount(which, loss[rows]) / np.bincount(which)
        axes.plot(params[rows], loss[rows], ".", color=shade, markersize=4)
        axes.plot(sizes, means, "-", color=shade, linewidth=0.8)
        axes.annotate(
            f"{compute:.3g}", (sizes[-1], means[-1]), xytext=(3, 0), fontsize=7, color=shade,
            textcoords="offset points", va="center",
        )  # fmt: skip
    minima = [m for m in law.isoflop if m.params and m.loss]
    # A ring, as a cross means a minimum that is refused on the pages.
    axes.plot([m.params for m in minima], [m.loss for m in minima], "o", color=ACCENT, mfc="none")  # type: ignore[arg-type]
    axes.margins(x=0.12)  # room for the name of a budget
    axes.tick_params(axis="x", which="minor", labelsize=6)
    axes.set(xscale="log", xlabel="parameters", ylabel="loss", title="Budgets (FLOPs) and minima")


def _frontier(axes: "Axes", law: Drawn) -> None:
    """Draw the least loss over compute with its interval, the runs, and what lies beyond them."""
    rows = list(bands(law))
    flops = np.array([row["flops"] for row in rows])
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    largest = max(run.flops for run in law.runs)
    axes.fill_between(flops, columns["loss_low"], columns["loss_high"], color=ACCENT, alpha=0.2)
    for part, style in ((flops <= largest * 1.01, "-"), (flops >= largest * 0.9, "--")):
        axes.plot(flops[part], columns["loss"][part], style, color=ACCENT)
    axes.plot([r.flops for r in law.runs], [r.loss for r in law.runs], ".", color=INK, markersize=3)
    per_cent = f"{100 * law.bootstrap.level:g} %"
    title = f"Least loss ({per_cent}); dashed: no run"
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="loss", title=title)
