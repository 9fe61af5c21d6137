"""What is drawn on one pair of axes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from sweeps.report.figures.svg import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    budget_palette,
)
from sweeps.report.inputs.isoflop import (
    SAME_BUDGET,
    Inputs,
    Json,
    Run,
    interval,
    interval_of,
    mapping,
    to_number,
)
from sweeps.report.readings import frontier, isoflop_points
from sweeps.report.wording import format_count, format_flops, format_signed_percent, level_text


def budget_colors(inputs: Inputs) -> dict[float, str]:
    """Return the colour of each budget."""
    return dict(zip(inputs.budgets, budget_palette(len(inputs.budgets)), strict=True))


def plot_law(axes: Axes, inputs: Inputs) -> None:
    """Draw loss against compute: runs, isoFLOP minima, frontier, held-out test."""
    colors = budget_colors(inputs)
    faint = 0.5 if len(inputs.curves) < 100 else 0.2
    for budget, color in colors.items():
        curves = [inputs.curves[run.name] for run in inputs.grid_runs
                  if run.budget == budget and run.name in inputs.curves]  # fmt: skip
        # One broken line a budget: 500 lines of their own would carry their style 500 times.
        points = np.array([p for curve in curves for p in [*curve, (math.nan, math.nan)]])
        if len(points):
            axes.plot(points[:, 0], points[:, 1], color=color, lw=0.9, alpha=faint)
    _plot_frontier_loss(axes, inputs)
    for point in isoflop_points(inputs):
        budget = inputs.nearest_budget(to_number(point.get("budget")))
        axes.plot(
            budget,
            to_number(point.get("loss")), "o", ms=8, mfc=colors.get(budget, MUTED),
            mec=PAPER, mew=1.2, ls="", zorder=4,
        )  # fmt: skip
    plot_held_out(axes, inputs)
    axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="validation loss")
    _limit_law(axes, inputs)
    tick_flops(axes)
    tick_loss(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", handlelength=1.8)


def _limit_law(axes: Axes, inputs: Inputs) -> None:
    """Show the budgets and what leads to them, not the first steps after initialisation."""
    budgets, losses = inputs.budgets, [run.loss for run in inputs.grid_runs]
    band = [x for point in frontier(inputs) for x in interval_of(point, "loss")]
    low = min([*losses, *(x for x in band if x > 0)])
    # Room above the worst run, but never the untrained loss of 1 and more that all share.
    high = max(losses) * 1.35
    axes.set_ylim(low * 0.88, high)
    right = max([budgets[-1], *(to_number(p.get("flops")) for p in frontier(inputs))])
    axes.set_xlim(budgets[0] / 12, min(right, budgets[-1] * 10) * 1.6)


def _plot_frontier_loss(axes: Axes, inputs: Inputs) -> None:
    points = [p for p in frontier(inputs) if to_number(p.get("loss")) > 0]
    if not points:
        return
    flops, loss = column(points, "flops"), column(points, "loss")
    low, high = intervals(points, "loss")
    axes.fill_between(
        flops, low, high, color=INK, alpha=0.13, lw=0, zorder=2,
        label=f"{level_text(inputs)} bootstrap band",
    )  # fmt: skip
    # The dashed part starts where the solid one ends.
    last = max(int(np.sum(flops <= _last_fitted_budget(inputs) * SAME_BUDGET)), 1)
    axes.plot(flops[:last], loss[:last], color=INK, lw=2, zorder=3, label="fitted frontier")
    if last < len(flops):
        axes.plot(
            flops[last - 1 :], loss[last - 1 :], color=INK, lw=1.6, ls=(0, (4, 3)), zorder=3,
            label="extrapolated",
        )  # fmt: skip


def plot_held_out(axes: Axes, inputs: Inputs) -> None:
    """Draw the prediction of the held-out budget with its interval, and what it gave."""
    held_out = mapping(inputs.law.get("held_out"))
    budget, predicted = inputs.held_out_budget, to_number(held_out.get("predicted"))
    actual = to_number(held_out.get("actual"))
    if math.isfinite(budget + predicted):
        low, high = interval(held_out.get("interval"))
        if math.isfinite(low + high):
            # Around its middle: an interval of few resamples may lie beside its prediction.
            middle, half = (low + high) / 2, (high - low) / 2
            axes.errorbar(budget, middle, half, color=ACCENT, lw=1.6, capsize=5, zorder=5)
        axes.plot(
            budget, predicted, "D", ms=8, mfc=PAPER, mec=ACCENT, mew=1.8, ls="", zorder=6,
            label=f"held out: predicted, {level_text(inputs)} interval",
        )  # fmt: skip
    if math.isfinite(budget + actual):
        # Beside the prediction, not on it: the two often differ by less than a marker.
        axes.plot(
            budget * 1.07, actual, "*", ms=12, mfc=ACCENT, mec=PAPER, mew=0.6, ls="", zorder=7,
            label="held out: measured",
        )  # fmt: skip
    if math.isfinite(budget + predicted + actual):
        error_text = format_signed_percent(to_number(held_out.get("relative_error")))
        axes.annotate(
            f"predicted {predicted:.4g}\nmeasured {actual:.4g}\nerror {error_text}",
            (budget, min(predicted, actual)), (-16, -14), textcoords="offset points",
            ha="right", va="top", fontsize=11, color=ACCENT, linespacing=1.35,
        )  # fmt: skip


def plot_isoflop(axes: Axes, inputs: Inputs) -> None:
    """Draw loss against parameters at each budget."""
    colors = budget_colors(inputs)
    minima = {
        inputs.nearest_budget(to_number(point.get("budget"))): point
        for point in isoflop_points(inputs)
    }
    for budget, color in colors.items():
        runs = sorted(
            (run for run in inputs.grid_runs if run.budget == budget), key=lambda run: run.params
        )
        label = format_flops(budget)
        if budget == inputs.held_out_budget and not inputs.held_out_in_fit:
            label += " (held out)"
        axes.plot(
            [run.params for run in runs], [run.loss for run in runs], "o", ms=6, color=color,
            mec=PAPER, mew=0.8, ls="", label=label, zorder=3,
        )  # fmt: skip
        _plot_parabola(axes, runs, color)
        _plot_isoflop_minimum(axes, minima.get(budget, {}), runs)
    for mark, color, label in (("v", INK, "minimum"), ("x", ACCENT, "refused")):
        if any((point.get("interior") is False) == (mark == "x") for point in minima.values()):
            axes.plot([], [], mark, ms=8, mew=1.6, color=color, ls="", label=label)
    axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="validation loss")
    tick_counts(axes)
    tick_loss(axes)
    axes.margins(y=0.08)
    axes.legend(title="FLOPs", loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)


def _plot_parabola(axes: Axes, runs: Sequence[Run], color: str) -> None:
    """Draw the parabola of log L in log N, as the fit's approach 2 does."""
    x, y = (np.log([getattr(run, key) for run in runs]) for key in ("params", "loss"))
    if len(np.unique(x)) < 3:
        return
    center = x.mean()
    coefficients = np.polyfit(x - center, y, 2)
    at = np.linspace(x.min(), x.max(), 60)
    style = "-" if coefficients[0] > 0 else ":"
    axes.plot(np.exp(at), np.exp(np.polyval(coefficients, at - center)), color=color, lw=1.6,
              ls=style, zorder=2)  # fmt: skip


def _plot_isoflop_minimum(axes: Axes, point: Json, runs: Sequence[Run]) -> None:
    """Mark the minimum; where it was refused, cross out the best size that stands in its place.

    As in the fit a size counts by the mean over its seeds.
    """
    best, loss = to_number(point.get("params")), to_number(point.get("loss"))
    if not math.isfinite(best + loss):
        if point:
            size, mean = best_size(runs)
            axes.plot(size, mean, "x", ms=13, mew=2, color=ACCENT, ls="", zorder=5)
        return
    low, high = interval_of(point, "params")
    if math.isfinite(low + high):
        axes.hlines(loss, low, high, color=INK, lw=1.4, zorder=4)
    interior = point.get("interior") is not False
    axes.plot(best, loss, "v", ms=8, mfc=INK if interior else PAPER, mec=INK, ls="", zorder=5)


def best_size(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the parameters of the size with the least loss, and that loss, mean over seeds."""
    losses: dict[float, list[float]] = {}
    for run in runs:
        losses.setdefault(run.params, []).append(run.loss)
    means = {size: float(np.mean(of)) for size, of in losses.items()}
    size = min(means, key=lambda size: means[size])
    return size, means[size]


def plot_minimum(axes: Axes, inputs: Inputs, point: Json, key: str) -> None:
    """Draw one isoFLOP minimum of ``key`` (params or tokens) against compute."""
    budget = inputs.nearest_budget(to_number(point.get("budget")))
    value, colors = to_number(point.get(key)), budget_colors(inputs)
    if not (math.isfinite(budget) and value > 0):
        return
    color = colors.get(budget, MUTED)
    low, high = interval_of(point, key)
    if math.isfinite(low + high):
        axes.vlines(budget, low, high, color=color, lw=2)
    interior = point.get("interior") is not False
    axes.plot(budget, value, "o", ms=8, mfc=color if interior else PAPER, mec=color, ls="")


def _last_fitted_budget(inputs: Inputs) -> float:
    unseen = math.nan if inputs.held_out_in_fit else inputs.held_out_budget
    fitted = [budget for budget in inputs.budgets if budget != unseen]
    return fitted[-1] if fitted else math.inf


def column(points: Sequence[Json], key: str) -> np.ndarray:
    """Return one quantity of each point."""
    return np.array([to_number(point.get(key)) for point in points])


def intervals(points: Sequence[Json], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of a quantity of each point."""
    pairs = np.array([interval_of(point, key) for point in points])
    return pairs[:, 0], pairs[:, 1]


def tick_flops(axes: Axes) -> None:
    """Label compute in powers of ten."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_flops(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def tick_counts(axes: Axes, which: str = "x") -> None:
    """Label a logarithmic axis in k, M, B."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value)))
    axis.set_minor_locator(NullLocator())


def tick_loss(axes: Axes) -> None:
    """Label losses with plain numbers."""
    # Losses rarely span a decade: evenly spaced plain numbers read better than powers of ten.
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
