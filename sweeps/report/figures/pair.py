"""The figure of two studies: loss against compute on the same axes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from sweeps.report.figures.panels import column, tick_flops, tick_loss
from sweeps.report.figures.svg import ACCENT, INK, PAPER, WIDTH, Drawing, Size, draw, new_figure
from sweeps.report.inputs.isoflop import Json, to_number


@dataclass(frozen=True)
class Panel:
    """A study's runs, as rows of runs.csv, and the frontier of its law."""

    name: str
    rows: Sequence[Mapping[str, str]]
    frontier: Sequence[Json]


def draw_pair(panels: Sequence[Panel]) -> dict[str, Drawing]:
    """Return the figure, if both studies have a run with a loss."""
    points = [_points(panel) for panel in panels]
    if not all(points):
        return {}
    alt = " beside ".join(f"{len(p)} runs of {x.name}" for x, p in zip(panels, points, strict=True))
    build = partial(_figure, panels, points)
    return {"pair": draw("pair", Size(WIDTH, 360), build, f"Loss against compute: {alt}.")}


def _points(panel: Panel) -> list[tuple[float, float]]:
    pairs = [(to_number(row.get("flops")), to_number(row.get("loss"))) for row in panel.rows]
    return [(flops, loss) for flops, loss in pairs if flops > 0 and loss > 0 and loss < math.inf]


def _figure(
    panels: Sequence[Panel], points: Sequence[Sequence[tuple[float, float]]], size: Size
) -> Figure:
    figure = new_figure(size)
    places = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axes, panel, pairs in zip(places, panels, points, strict=True):
        axes.plot(*zip(*pairs, strict=True), "o", ms=6, mfc=ACCENT, mec=PAPER, mew=0.6, ls="")
        if panel.frontier:
            axes.plot(column(panel.frontier, "flops"), column(panel.frontier, "loss"), color=INK)
        axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)")
        axes.set_title(panel.name.replace("$", r"\$"))
    for axes in places:
        tick_flops(axes)
        tick_loss(axes)
    places[0].set_ylabel("validation loss")
    return figure
