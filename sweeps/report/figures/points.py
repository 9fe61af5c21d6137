"""The figure of a study of points: the panels that its analysis asks for."""

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sweeps.report.figures.svg import (
    MUTED,
    PAPER,
    WIDTH,
    Drawing,
    Size,
    budget_palette,
    draw,
    figure_style,
    new_figure,
)
from sweeps.report.inputs.isoflop import Json, records, to_number
from sweeps.report.inputs.points import PointsInputs
from sweeps.report.wording import format_count, format_flops, heading

_HEIGHT = 300  # CSS pixels of a row of panels
_COLUMNS = 2
_LONGEST = 44  # characters of a title or label
_CROWDED = 60  # characters of names that an axis holds side by side
_INSIDE = 6  # names of a legend that lies inside its panel
_PANELS = 24  # of a figure; two stand in a row


def draw_points(inputs: PointsInputs) -> dict[str, Drawing]:
    """Return the figure, if there are panels to draw."""
    panels = records(inputs.finding.get("panels"))[:_PANELS]
    panels = [panel for panel in panels if any(_points(s)[0] for s in _series(panel))]
    if not panels:
        return {}
    rows = math.ceil(len(panels) / _COLUMNS)
    alt = "; ".join(str(panel.get("title") or "") for panel in panels)
    size = Size(WIDTH, _HEIGHT * rows)
    return {"answer": draw("answer", size, lambda size: _figure(panels, size), alt)}


def save_points_picture(inputs: PointsInputs, path: Path) -> None:
    """Write the first two panels as a PNG on white, for a README."""
    panels = records(inputs.finding.get("panels"))[:2]
    if not panels:
        return
    with figure_style():
        figure = _figure(panels, Size(1120, 400))
        figure.savefig(path, dpi=144, facecolor="white")


def colours(inputs: PointsInputs) -> list[str]:
    """Return one colour for each number that a series may have."""
    numbers = [
        int(to_number(series.get("colour", 0)))
        for panel in records(inputs.finding.get("panels"))
        for series in _series(panel)
    ]
    return budget_palette(max([*numbers, 0]) + 1)


def _series(panel: Json) -> list[Json]:
    return records(panel.get("series"))


def _points(series: Json) -> tuple[list[float], list[float]]:
    """Return the finite points of a series."""
    x = [to_number(value) for value in series.get("x") or []]
    y = [to_number(value) for value in series.get("y") or []]
    kept = [(a, b) for a, b in zip(x, y, strict=False) if math.isfinite(a + b)]
    return [a for a, _ in kept], [b for _, b in kept]


def _figure(panels: list[Json], size: Size) -> Figure:
    figure = new_figure(size)
    columns = min(_COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    places = figure.subplots(lines, columns, squeeze=False).flatten()
    number = max(int(to_number(s.get("colour", 0))) for p in panels for s in _series(p)) + 1
    palette = budget_palette(number)
    for axes, panel in zip(places, panels, strict=False):
        _plot(axes, panel, palette)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    return figure


def _plot(axes: Axes, panel: Json, palette: list[str]) -> None:
    for series in _series(panel):
        x, y = _points(series)
        index = int(to_number(series.get("colour", 0)))
        colour = palette[index] if 0 <= index < len(palette) else MUTED
        label = plain(str(series.get("label") or "")) or "_nolegend_"
        if series.get("line"):
            axes.plot(x, y, color=colour, lw=1.4, label=label, zorder=2)
            continue
        low, high = ([to_number(v) for v in series.get(key) or []] for key in ("low", "high"))
        if len(low) == len(high) == len(x):
            for place, bottom, top in zip(x, low, high, strict=True):
                if math.isfinite(bottom + top):
                    axes.plot([place, place], [bottom, top], color=colour, lw=2, zorder=3)
        hollow = bool(series.get("hollow"))
        axes.plot(
            x, y, "o", ms=6.5, mfc=PAPER if hollow else colour, mec=colour if hollow else PAPER,
            ls="", label=label, zorder=4,
        )  # fmt: skip
    axes.set_title(plain(str(panel.get("title") or "")))
    axes.set_xlabel(plain(heading(panel.get("xlabel") or "")))
    axes.set_ylabel(plain(heading(panel.get("ylabel") or "")))
    for name, axis in (("xlog", axes.xaxis), ("ylog", axes.yaxis)):
        if panel.get(name):
            _log_scale(axes, name[0], axis, axis.get_label_text())
    if ticks := [plain(str(tick)) for tick in panel.get("ticks") or []]:
        crowded = sum(len(name) + 2 for name in ticks) > _CROWDED
        tilt: dict[str, Any] = {"rotation": 25, "ha": "right"} if crowded else {}
        axes.set_xticks(range(len(ticks)), ticks, **tilt)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
    names = axes.get_legend_handles_labels()[1]
    if len(names) > _INSIDE:  # so many would cover what they name
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.4)
    elif names:
        axes.legend(loc="best", handlelength=1.4)


def _log_scale(axes: Axes, letter: str, axis: object, label: str) -> None:
    (axes.set_xscale if letter == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if letter == "x" else axes.get_ylim()
    marks = (1.0,) if high / low > 50 else (1.0, 2.0, 5.0) if high / low > 4 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=marks, numticks=12))  # type: ignore[attr-defined]
    if high / low < 1.6:  # closer than whole digits: let matplotlib choose
        from matplotlib.ticker import MaxNLocator

        axis.set_major_locator(MaxNLocator(4))  # type: ignore[attr-defined]
    axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, label)))  # type: ignore[attr-defined]


def _tick(value: float, label: str) -> str:
    if "FLOPs" in label:
        return format_flops(value)
    return format_count(value) if value >= 1000 else f"{value:.3g}"


def plain(text: str) -> str:
    """Return text that matplotlib does not read as mathematics, and that leaves room for axes."""
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return text.replace("$", r"\$")
