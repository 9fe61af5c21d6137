"""The two figures of a study of arms: differences with intervals, and every run's value."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.kinds.arms.compare import spread_over_seeds
from sweeps.kinds.arms.table import Measure, measures_of, select
from sweeps.report.figures.svg import (
    INK,
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
from sweeps.report.inputs.arms import ArmsInputs
from sweeps.report.inputs.isoflop import Json, mapping, records, to_number

_ROW = 30  # CSS pixels of a row of the forest
_COLUMNS = 3  # of small panels
_UNITS = {"loss": "difference of loss (% of {reference})", "share": "difference (points of 100)"}


def draw_arms(inputs: ArmsInputs) -> dict[str, Drawing]:
    """Return the figures whose inputs exist, by name."""
    drawings = {}
    compared = _compared(inputs)
    if compared:
        rows = max(len(found) for found in compared.values())
        total = sum(len(found) for found in compared.values())
        drawings["differences"] = draw(
            "differences",
            Size(WIDTH, 90 + _ROW * rows),
            partial(_differences, inputs, compared),
            f"Difference of every arm from {inputs.reference} on {total} measures, with intervals.",
        )
    # The groups are in the first figure and in the tables; panels of each would fill pages.
    measures = [measure for measure in measures_of(inputs.values) if measure.group == "all"]
    if measures:
        lines = math.ceil(len(measures) / _COLUMNS)
        drawings["values"] = draw(
            "values",
            Size(WIDTH, 170 * lines + 20),
            partial(_values, inputs, measures),
            f"The value of every run on {len(measures)} measures, by arm and seed.",
        )
    return drawings


def save_arms_picture(inputs: ArmsInputs, path: Path) -> None:
    """Write the differences as a PNG on white, for a README."""
    compared = _compared(inputs)
    if not compared:
        return
    rows = max(len(found) for found in compared.values())
    with figure_style():
        figure = _differences(inputs, compared, Size(1120, 100 + _ROW * rows))
        figure.savefig(path, dpi=144, facecolor="white")


def _compared(inputs: ArmsInputs) -> dict[str, list[Json]]:
    """Return the rows that hold a difference, by unit; loss first."""
    found: dict[str, list[Json]] = {}
    for row in inputs.summary:
        if math.isfinite(row["difference"]) and row.get("unit") in _UNITS:
            found.setdefault(str(row["unit"]), []).append(row)
    return found


def arm_colours(inputs: ArmsInputs) -> dict[str, str]:
    """Return a colour for each arm."""
    return dict(zip(inputs.arms, budget_palette(len(inputs.arms)), strict=True))


def _differences(inputs: ArmsInputs, compared: dict[str, list[Json]], size: Size) -> Figure:
    """Draw a forest: one row a measure and arm, zero is the reference."""
    figure = new_figure(size)
    panels = figure.subplots(1, len(compared), squeeze=False)[0]
    for axes, (unit, rows) in zip(panels, compared.items(), strict=True):
        _forest(axes, inputs, unit, rows)
        axes.set_xlabel(_UNITS[unit].format(reference=_plain(inputs.reference)))
    return figure


def _forest(axes: Axes, inputs: ArmsInputs, unit: str, rows: Sequence[Json]) -> None:
    colours = arm_colours(inputs)
    several = len(inputs.arms) > 2
    labels = []
    for place, row in enumerate(rows):
        base = row["mean"] - row["difference"] if unit == "loss" else 1.0
        scale = 100 / base if base else math.nan
        middle, low, high = (scale * row[key] for key in ("difference", "low", "high"))
        colour = colours.get(str(row["arm"]), MUTED)
        if math.isfinite(low + high):
            axes.plot([low, high], [place, place], color=colour, lw=2.2, zorder=3)
        floor = scale * row["noise_floor"]
        if math.isfinite(floor):
            axes.plot(
                [-2 * floor, 2 * floor], [place, place], color=INK, alpha=0.09, lw=11,
                solid_capstyle="butt", zorder=1,
            )  # fmt: skip
        resolved = row.get("resolved") == "yes"
        axes.plot(
            middle, place, "o", ms=8, mfc=colour if resolved else PAPER, mec=colour, mew=1.6,
            zorder=4,
        )  # fmt: skip
        where = "" if row["group"] == "all" else f" · {row['group']}"
        who = f" · {row['arm']}" if several else ""
        labels.append(_plain(f"{row['measure']}{where}{who}"))
    axes.axvline(0, color=MUTED, lw=1, zorder=2)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _values(inputs: ArmsInputs, measures: Sequence[Measure], size: Size) -> Figure:
    """Draw one small panel a measure: arms along x, a dot a seed."""
    figure = new_figure(size)
    lines = math.ceil(len(measures) / _COLUMNS)
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    colours = arm_colours(inputs)
    held_out = _held_out(inputs)
    for axes, measure in zip(panels, measures, strict=False):
        for place, arm in enumerate(inputs.arms):
            members = select(inputs.values, measure, arm)
            seeds = sorted({value.seed for value in members})
            means = [spread_over_seeds([v for v in members if v.seed == seed])[0] for seed in seeds]
            offsets = [place + 0.07 * (i - (len(means) - 1) / 2) for i in range(len(means))]
            axes.plot(offsets, means, "o", ms=6, mfc=colours[arm], mec=PAPER, ls="", zorder=3)
            if means:
                middle = sum(means) / len(means)
                axes.hlines(middle, place - 0.3, place + 0.3, color=colours[arm], lw=2, zorder=2)
        mean = held_out.get((measure.name.split(",")[0], measure.group), math.nan)
        if math.isfinite(mean):
            axes.axhspan(mean - 0.006, mean + 0.006, color=INK, alpha=0.18, lw=0, zorder=1)
        where = "" if measure.group == "all" else f" · {measure.group}"
        axes.set_title(_plain(f"{measure.name}{where}"), fontsize=11, fontweight="normal")
        axes.set_xticks(range(len(inputs.arms)), [_plain(arm) for arm in inputs.arms])
        axes.set_xlim(-0.6, len(inputs.arms) - 0.4)
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    return figure


def _held_out(inputs: ArmsInputs) -> dict[tuple[str, str], float]:
    """Return what the probe measures on the held-out clips themselves."""
    return {
        (str(row.get("measure")), str(row.get("group"))): to_number(row.get("mean"))
        for row in records(mapping(inputs.study).get("held_out"))
    }


def _plain(text: str) -> str:
    """Return text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
