"""What a row of "All runs" opens: one run's facts, and its curves as small figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.report.explorer.curves import points_of_a_curve, thinned
from sweeps.report.inputs.histories import History, Series
from sweeps.report.inputs.isoflop import to_number
from sweeps.report.wording import (
    NONE,
    format_count,
    format_flops,
    format_percent,
    format_seconds,
    format_value,
)

WIDTH, HEIGHT = 240, 72  # units of a small figure's box
MOST_POINTS = 32  # of a small figure
MANY_RUNS = 150  # of more than these only the losses are drawn one by one, to keep the page light
_LOSSES = 2  # of _CURVES
_LEAST_SPAN = 1.2  # of an axis, largest over smallest: jitter of a steady value stays a flat line


@dataclass(frozen=True)
class Spark:
    """A small figure: its path in a box of WIDTH x HEIGHT, and what its ends stand for."""

    title: str
    path: str
    low: str
    high: str
    last: str


@dataclass(frozen=True)
class RunDetail:
    """A run as its row opens it. facts: (what, value). missing: curves that it did not leave."""

    name: str
    facts: list[tuple[str, str]]
    sparks: list[Spark]
    missing: list[str]
    drawn: bool


_CURVES = (
    ("loss", "validation loss", "checks"),
    ("train_loss", "training loss", "training"),
    ("lr", "learning rate", "training"),
    ("grad_norm", "gradient norm", "training"),
    ("tokens_per_second", "throughput, tokens a second", "training"),
)


def run_details(
    histories: Sequence[History], drawn: frozenset[str] = frozenset(), peak: float = math.nan
) -> list[RunDetail]:
    """Return the details of every run, in the order of runs.csv.

    drawn: runs that drew samples. peak: FLOP/s of one device, NaN where it is not known.
    """
    most = min(MOST_POINTS, points_of_a_curve(len(histories)))
    curves = _CURVES if len(histories) <= MANY_RUNS else _CURVES[:_LOSSES]
    found = []
    for history in histories:
        training, checks = thinned(history, most)
        series = {"training": training, "checks": checks}
        sparks, missing = [], []
        for key, title, part in curves:
            spark = _spark(title, series[part], key)
            if spark is None:
                missing.append(title.partition(",")[0])
            else:
                sparks.append(spark)
        facts = _facts(history, peak)
        found.append(RunDetail(history.name, facts, sparks, missing, history.name in drawn))
    return found


def _facts(history: History, peak: float) -> list[tuple[str, str]]:
    row = history.row
    get = {key: to_number(row.get(key)) for key in row}
    processes = get.get("world_size", math.nan)
    processes = processes if processes >= 1 else 1.0
    seconds, flops = get.get("seconds", math.nan), get.get("flops", math.nan)
    speed = flops / seconds if seconds > 0 else math.nan
    loss, noise = get.get("loss", math.nan), get.get("loss_noise", math.nan)
    spread = f" ± {format_value(noise, 2)}" if math.isfinite(noise) else ""
    utilisation = format_percent(speed / processes / peak)
    pairs = [
        ("Loss", f"{format_value(loss)}{spread}" if math.isfinite(loss) else ""),
        ("Parameters", format_count(get.get("params", math.nan))),
        ("Tokens", format_count(get.get("tokens", math.nan))),
        ("FLOPs", format_flops(flops)),
        ("Time", format_seconds(seconds)),
        ("Cost", f"{seconds * processes / 3600:.3g} device hours" if seconds > 0 else ""),
        ("Speed", f"{format_flops(speed)} FLOPs a second" if math.isfinite(speed) else ""),
        ("MFU", utilisation if math.isfinite(peak) else ""),
        ("Attempts", _count(history, "attempts")),
        ("Memory", _memory(history)),
        ("Left out because", row.get("reason", "")),
    ]
    return [(what, value) for what, value in pairs if value and value != NONE]


def _count(history: History, key: str) -> str:
    value = to_number(history.result.get(key))
    return f"{value:.0f}" if math.isfinite(value) else ""


def _memory(history: History) -> str:
    peak = to_number(history.result.get("peak_rss_bytes"))
    return f"{peak / 2**30:.2g} GiB at most in a process" if peak > 0 else ""


def _spark(title: str, series: Series, key: str) -> Spark | None:
    """Return a small figure of a value over training; losses and norms have a logarithmic axis."""
    across = series.get("flops") or series.get("step") or []
    pairs = zip(across, series.get(key, []), strict=False)
    points = [(x, y) for x, y in pairs if math.isfinite(x + y)]
    if len(points) < 2:
        return None
    low, high = min(y for _, y in points), max(y for _, y in points)
    end = max(x for x, _ in points) or 1.0
    log = low > 0
    scale = math.log if log else float
    middle = (scale(low) + scale(high)) / 2
    least = math.log(_LEAST_SPAN) if log else (_LEAST_SPAN - 1) * abs(high) or 1.0
    height = max(scale(high) - scale(low), least)
    at = [
        f"{WIDTH * x / end:.0f} {HEIGHT * (0.5 - (scale(y) - middle) / height):.0f}"
        for x, y in points
    ]
    show = format_count if high >= 1000 else lambda value: format_value(value, 3)
    return Spark(title, "M" + "L".join(at), show(low), show(high), show(points[-1][1]))
