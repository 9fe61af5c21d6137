"""Both frontiers with their runs, and the multiplier over the common losses, as one SVG."""

import numpy as np
from matplotlib.ticker import FormatStrFormatter

from sweeps.compare.multiplier import Comparison
from sweeps.compare.sides import Side
from sweeps.report.figures.svg import (
    ACCENT,
    INK,
    Size,
    figure_style,
    file_svg,
    new_figure,
    svg_text,
)


def draw(found: Comparison, a: Side, b: Side) -> str:
    """Return the SVG's text."""
    with figure_style():
        figure = new_figure(Size(820, 340))
        left, right = figure.subplots(1, 2)
        for side, color, marker in ((a, INK, "o"), (b, ACCENT, "s")):
            inside = (side.grid >= np.log(side.low)) & (side.grid <= np.log(side.high))
            x = np.exp(side.grid[inside])
            band = np.exp(np.nanpercentile(side.draws[:, inside], [5, 95], axis=0))
            left.fill_between(x, *band, color=color, alpha=0.15, linewidth=0)
            left.plot(x, np.exp(side.curve[inside]), color=color, label=_plain(side.name))
            left.plot(side.flops, side.loss, marker, color=color, markersize=3.5, alpha=0.7)
        left.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="held-out loss",
                 title="Loss over compute")  # fmt: skip
        for which in ("set_major_formatter", "set_minor_formatter"):
            getattr(left.yaxis, which)(FormatStrFormatter("%g"))
        left.legend()
        if found.points:
            loss = [p["loss"] for p in found.points]
            low, high = np.array([p["interval"] for p in found.points]).T
            right.fill_between(loss, low, high, color=ACCENT, alpha=0.2, linewidth=0)
            right.plot(loss, [p["factor"] for p in found.points], color=ACCENT)
            right.invert_xaxis()
        else:
            right.text(
                0.5, 0.5, "the losses do not overlap", ha="center", transform=right.transAxes
            )
        right.axhline(1.0, color=INK, linewidth=1, linestyle="--")
        ratio = f"compute of {_plain(a.name)} / {_plain(b.name)}"
        right.set(xlabel="held-out loss (falling)", ylabel=ratio, title="Compute at equal loss")
        return file_svg(svg_text(figure, "compare"))


def _plain(name: str) -> str:
    """Return a name in which a dollar starts no formula."""
    return name.replace("$", r"\$")
