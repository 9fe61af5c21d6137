"""The loss taken apart: by noise level, and by world, length and size of the validation clips.

Reads what each run's validation recorded of itself (``trainer/diffusion/evaluate.py``):
``by_time``, and ``groups`` with sums of errors and values, so that the loss of any groups together
is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.times import log_snr
from sweeps.fit.rows.y_axis import strata_in
from sweeps.report.inputs.isoflop import Inputs, Json, Run, mapping, records, to_number
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.wording import format_count, format_flops, format_signed_percent, format_value
from sweeps.study.archive import losses_by_time

Key = tuple[float, str]  # of a group: where it sorts, and its name
MAX_GROUPS = 8  # of lengths or sizes on a page; more are joined by doublings


@dataclass(frozen=True)
class Part:
    """A loss over some of the validation clips, with its noise over draws (NaN where unknown)."""

    loss: float
    noise: float
    clips: int


@dataclass(frozen=True)
class Breakdown:
    """One way to part the clips: ``parts[group][budget]``, groups in reading order."""

    title: str
    parts: dict[str, dict[float, Part]]


def best_runs(inputs: Inputs) -> dict[float, Run]:
    """Return the run of least loss of each budget."""
    return {
        budget: min((r for r in inputs.grid_runs if r.budget == budget), key=lambda r: r.loss)
        for budget in inputs.budgets
    }


def by_time(inputs: Inputs) -> dict[float, list[float]]:
    """Return the loss by stratum of t of each budget's best run, where its result holds it."""
    found = {}
    for budget, run in best_runs(inputs).items():
        values = _by_time(inputs.results.get(run.name, {}))
        if values and all(value > 0 for value in values):
            found[budget] = values
    return found


def _by_time(result: Json) -> list[float]:
    try:
        return strata_in(losses_by_time(result))
    except (AttributeError, KeyError, TypeError, ValueError):  # a result of other hands
        return []


def breakdowns(inputs: Inputs) -> list[Breakdown]:
    """Return the loss of each budget's best run by world, length and size, where recorded."""
    rows = {b: _groups(inputs, run) for b, run in best_runs(inputs).items()}
    rows = {budget: groups for budget, groups in rows.items() if groups}
    if not rows:
        return []
    everything = [group for groups in rows.values() for group in groups]
    namers = {"world": _world, "length": _lengths(everything), "size": _sizes(everything)}
    return [Breakdown(title, _parts(rows, everything, key)) for title, key in namers.items()]


def _parts(
    rows: dict[float, list[Json]], everything: Sequence[Json], key: Callable[[Json], Key]
) -> dict[str, dict[float, Part]]:
    parts: dict[str, dict[float, Part]] = {}
    for name in sorted({key(group) for group in everything}):
        for budget, groups in rows.items():
            if own := [group for group in groups if key(group) == name]:
                parts.setdefault(name[1], {})[budget] = _joined(own)
    return parts


def _groups(inputs: Inputs, run: Run) -> list[Json]:
    """Return the groups of a run's first validation split."""
    validation = mapping(inputs.results.get(run.name, {}).get("validation"))
    first = mapping(next(iter(validation.values()), None))
    needed = ("values", "errors", "num_frames", "height", "width")
    return [g for g in records(first.get("groups")) if all(to_number(g.get(k)) > 0 for k in needed)]


def _joined(groups: Sequence[Json]) -> Part:
    """Return the loss of groups together: a ratio of sums."""
    values = sum(to_number(g["values"]) for g in groups)
    variance = sum(to_number(g.get("variance")) for g in groups)
    noise = math.sqrt(variance) / values if variance >= 0 else math.nan
    clips = sum(int(to_number(g.get("clips")) or 0) for g in groups)
    return Part(sum(to_number(g["errors"]) for g in groups) / values, noise, clips)


def _area(group: Json) -> float:
    return to_number(group.get("height")) * to_number(group.get("width"))


def _world(group: Json) -> Key:
    return 0.0, str(group.get("world"))


def _lengths(groups: Sequence[Json]) -> Callable[[Json], Key]:
    """Name a clip's length: its frames, or a doubling of them where there are many lengths."""
    many = len({group["num_frames"] for group in groups}) > MAX_GROUPS

    def key(group: Json) -> Key:
        frames = int(to_number(group["num_frames"]))
        low = 2 ** int(math.log2(frames))
        if frames == 1:
            return 1, "image"
        return (low, f"{low} to {2 * low - 1} frames") if many else (frames, f"{frames} frames")

    return key


def _sizes(groups: Sequence[Json]) -> Callable[[Json], Key]:
    """Name a clip's size: width x height, or a doubling of its area where there are many."""
    many = len({(group["height"], group["width"]) for group in groups}) > MAX_GROUPS

    def key(group: Json) -> Key:
        height, width = (int(to_number(group[k])) for k in ("height", "width"))
        low = 2 ** int(math.log2(height * width))
        if many:
            return low, f"{format_count(low)} to {format_count(2 * low)} px"
        return height * width, f"{width}×{height} px"

    return key


def breakdown_table(inputs: Inputs) -> Table | None:
    """Return every group's loss at each budget, and what the whole of compute improved."""
    rows = []
    for breakdown in breakdowns(inputs):
        for name, parts in breakdown.parts.items():
            ends = [parts[b].loss for b in (min(parts), max(parts))]
            clips = max(part.clips for part in parts.values())
            gain = ends[1] / ends[0] - 1 if len(parts) > 1 else math.nan
            rows.append(
                [
                    Cell(f"{breakdown.title}: {name}"),
                    number_cell(float(clips), str(clips)),
                    *(_part_cell(parts.get(budget)) for budget in inputs.budgets),
                    number_cell(gain, format_signed_percent(gain, 1)),
                ]
            )
    columns = ["clips of", "clips", *(format_flops(b) for b in inputs.budgets), "last vs first"]
    return (
        make_table("Loss of each budget's best run, by kind of clip", columns, rows)
        if rows
        else None
    )


def _part_cell(part: Part | None) -> Cell:
    if part is None:
        return Cell("")
    noise = f" ± {format_value(part.noise, 1)}" if math.isfinite(part.noise) else ""
    return number_cell(part.loss, format_value(part.loss) + noise)


def noise_table(inputs: Inputs) -> Table | None:
    """Return the loss by noise level of each budget's best run."""
    found = by_time(inputs)
    if not found:
        return None
    strata = max(len(losses) for losses in found.values())
    spread = _spread(inputs)
    rows = [
        [
            Cell(f"{i / strata:.3g} to {(i + 1) / strata:.3g}"),
            *([Cell(_ratio(i / strata, (i + 1) / strata, spread))] if spread else []),
            *(number_cell(losses[i] if i < len(losses) else math.nan) for losses in found.values()),
        ]
        for i in range(strata)
    ]
    levels = ["log-SNR of the data"] if spread else []
    columns = ["t, 0 is noise", *levels, *(f"{format_flops(budget)} FLOPs" for budget in found)]
    return make_table("Loss of each budget's best run, by noise level", columns, rows)


def _spread(inputs: Inputs) -> float:
    """Return the spread of the latents that the runs state, 0 where they do not or differ."""
    stated = {to_number(inputs.results.get(r.name, {}).get("spread")) for r in inputs.grid_runs}
    return stated.pop() if len(stated) == 1 and min(stated) > 0 else 0.0


def _ratio(low: float, high: float, spread: float) -> str:
    """Return the log-SNR of the data over a stratum, in words where it has no end."""
    below, above = (log_snr(t, spread) for t in (low, high))
    if math.isinf(below):
        return f"below {above:.1f}"
    return f"above {below:.1f}" if math.isinf(above) else f"{below:.1f} to {above:.1f}"
