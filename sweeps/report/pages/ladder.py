"""The ladder of samples: prompts by columns of models, each clip with what it is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.report import wording
from sweeps.report.inputs.isoflop import Json, file_inside, mapping, records, to_number
from sweeps.report.pages.shared import Video, video_cell
from sweeps.report.tables.prompt_colours import (
    Mean,
    Shares,
    colour_shares,
    colours_named,
    mean_of,
    score,
)
from sweeps.report.video import read_frames


@dataclass(frozen=True)
class Head:
    """A column: a budget's best model, or an arm. color: number of its colour on the page."""

    title: str
    details: tuple[str, ...] = ()
    color: int | None = None
    run: str = ""


@dataclass(frozen=True)
class Prompt:
    """A row: its text, the files drawn for it, one a column, and its held-out clip's."""

    text: str
    shape: str
    files: Sequence[object]
    reference: object


@dataclass(frozen=True)
class Row:
    """A prompt with its videos; ``floor`` is what clips of other prompts score against it."""

    text: str
    shape: str
    videos: list[Video]
    reference: Video | None
    floor: str


@dataclass(frozen=True)
class Ladder:
    """The table. means, gains: texts of each column, gains above clips of other prompts (floor).

    ceiling: of the codec's own clips.
    """

    heads: Sequence[Head]
    rows: list[Row]
    means: list[str]
    gains: list[str]
    ceiling: str
    ceiling_gain: str
    floor: str
    verdict: str


def prompts_of(ladder: Json) -> list[Prompt]:
    """Return the rows of a ladder.json."""
    files, references = (mapping(ladder.get(key)) for key in ("files", "reference"))
    found = []
    for prompt in records(ladder.get("prompts")):
        key, shape = str(prompt.get("id")), prompt.get("shape")
        named = files.get(key)
        found.append(
            Prompt(
                str(prompt.get("text") or key),
                "×".join(map(str, shape)) if isinstance(shape, list) else str(shape or ""),
                list(named) if isinstance(named, list) else [],
                references.get(key),
            )
        )
    return found


def heads_of(
    ladder: Json, budgets: Sequence[float] = (), nearest: Sequence[float] = ()
) -> list[Head]:
    """Return the columns of a ladder.json; ``nearest`` is the budget that colours each."""
    found = []
    for number, column in enumerate(records(ladder.get("columns"))):
        budget = nearest[number] if number < len(nearest) else math.nan
        spent = to_number(column.get("budget"))
        spent = spent if spent > 0 else to_number(column.get("flops"))
        params, loss = to_number(column.get("params")), to_number(column.get("loss"))
        details = [f"{wording.format_count(params)} parameters"] * math.isfinite(params)
        details += [f"loss {wording.format_value(loss)}"] * math.isfinite(loss)
        color = budgets.index(budget) if budget in budgets else None
        title = f"{wording.format_flops(spent)} FLOPs"
        found.append(Head(title, tuple(details), color, str(column.get("run") or "")))
    return found


def build_ladder(
    study_dir: Path, notes: list[str], heads: Sequence[Head], prompts: Sequence[Prompt]
) -> Ladder | None:
    """Return the table, None where there is none; a file that is missing becomes a note."""
    if not heads or not prompts:
        return None
    named = [colours_named(prompt.text) for prompt in prompts]
    references = [_shares(study_dir, prompt.reference) for prompt in prompts]
    drawn: list[list[float]] = [[] for _ in heads]
    ceilings, floors, rows = [], [], []
    for number, prompt in enumerate(prompts):
        colours = named[number]
        names = [*prompt.files, *[None] * (len(heads) - len(prompt.files))][: len(heads)]
        scores = [_score(_shares(study_dir, name), colours) for name in names]
        for column, value in zip(drawn, scores, strict=True):
            column.append(value)
        ceilings.append(_score(references[number], colours))
        others = [_score(s, colours) for i, s in enumerate(references) if i != number]
        floors.append(mean_of(others).value)
        videos = [
            replace(video_cell(study_dir, notes, name, f"{prompt.text}, {head.title}"),
                    score=_text(value))
            for name, head, value in zip(names, heads, scores, strict=True)
        ]  # fmt: skip
        reference = None
        if prompt.reference:
            cell = video_cell(study_dir, notes, prompt.reference, f"{prompt.text}, held-out clip")
            reference = replace(cell, score=_text(ceilings[-1]))
        rows.append(Row(prompt.text, prompt.shape, videos, reference, _text(floors[-1])))
    means, gains = [mean_of(column) for column in drawn], [_above(c, floors) for c in drawn]
    return Ladder(
        heads, rows, [_interval(m) for m in means], [_gain(g) for g in gains],
        _interval(mean_of(ceilings)), _gain(_above(ceilings, floors)), _interval(mean_of(floors)),
        _verdict(heads, gains),
    )  # fmt: skip


def _above(values: Sequence[float], floors: Sequence[float]) -> Mean:
    """Return by how much scores lie above those of other prompts' clips, paired by prompt."""
    return mean_of([a - b for a, b in zip(values, floors, strict=True)])


def _shares(study_dir: Path, name: object) -> Shares | None:
    path = file_inside(study_dir, name)
    try:
        return None if path is None else colour_shares(read_frames(path))
    except ValueError:
        return None  # it is no video; the page shows an empty cell


def _score(shares: Shares | None, colours: frozenset[str]) -> float:
    return math.nan if shares is None else score(shares, colours)


def _text(value: float) -> str:
    return f"colours {value:.2f}" if math.isfinite(value) else ""


def _interval(mean: Mean) -> str:
    if not math.isfinite(mean.value):
        return ""
    known = math.isfinite(mean.low)
    return f"{mean.value:.2f}" + (f" [{mean.low:.2f}, {mean.high:.2f}]" if known else "")


def _gain(mean: Mean) -> str:
    """Return a difference with its interval; empty where there is none."""
    if not math.isfinite(mean.low):
        return ""
    return f"{_signed(mean.value)} [{_signed(mean.low)}, {_signed(mean.high)}]"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _verdict(heads: Sequence[Head], gains: Sequence[Mean]) -> str:
    """Say which columns' clips can be told from clips of other prompts."""
    known = [(h.title, g) for h, g in zip(heads, gains, strict=True) if math.isfinite(g.low)]
    if not known:
        return ""
    alike = [title for title, gain in known if gain.low <= 0]
    if not alike:
        return "Clips of every column show their own prompt better than clips of other prompts do."
    which = "any column" if len(alike) == len(known) else ", ".join(alike)
    return f"By their colours, clips of {which} cannot be told from clips of other prompts."
