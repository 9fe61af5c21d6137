"""Which decoder reads which file right, and how fast: ``python -m benchmarks.decode``.

The matrix holds each decoder against PyAV's sequential decoding of the same bytes, and PyAV against
the painted film that the file was made from. The interface is what training uses, DecoderPool, with
sizes found by its own probe. The speed table is of clips as ingest writes them, on one thread, the
decoders taking turns. It prints Markdown; ``--update docs/decode.md`` puts it into that page.
"""

import argparse
import datetime
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.decode_files import Case, matrix, read_case
from benchmarks.decode_speed import clip_info, speed_table
from data.decode.check import (
    JUDGE,
    Choices,
    Frames,
    OneChild,
    Outcome,
    Verdict,
    installed,
    reader,
    verdict_on,
)
from data.decode.child import ChildFailure
from data.decode.pool import DecodeError, DecoderPool
from data.show.progress import Progress

TIMEOUT_SECONDS = 10.0
LEAST_ERROR = 8.2e-6  # squared levels: equal frames count as 99 dB
VISITS = 6  # of each file by the interface: enough to judge, to choose and to use the choice
MARKS = "<!-- measured: python -m benchmarks.decode -->", "<!-- end -->"


@dataclass
class Row:
    """What came of one file.

    psnr: worst frame of the judge against the painted film (dB), None where it read none.
    in_order: each of the judge's frames is nearest to its own painted frame.
    random: by decoder, whether frames in random order equal the judge's; absent where not offered.
    seen: by decoder, worst frame of what it read and the judge refused, against the film (dB).
    """

    case: Case
    num_frames: int = 0
    psnr: float | None = None
    in_order: bool | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    random: dict[str, bool] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    interface: str = ""
    readers: list[str] = field(default_factory=list)


def examine(case: Case, decoders: Sequence[str], child: OneChild, pool: DecoderPool) -> Row:
    """Read one file by every decoder, in order and at random, and by the interface."""
    payload, row, truth = read_case(case), Row(case), case.truth
    read = reader(child.ask, payload)
    judged = read(JUDGE)
    row.verdicts.append(verdict_on(JUDGE, judged, judged))
    if judged.frames is not None:
        row.num_frames = len(judged.frames)
        if truth is not None and truth.shape == judged.frames.shape:
            row.psnr = worst_psnr(judged.frames, truth)
            row.in_order = in_order(judged.frames, truth)
    for name in decoders[1:]:
        found = read(name)
        row.verdicts.append(verdict_on(name, found, judged))
        if found.frames is not None and judged.frames is not None:
            row.random[name] = reads_at_random(name, payload, judged.frames, child)
        elif found.frames is not None and truth is not None:
            row.seen[name] = worst_psnr(found.frames, truth)
    pool.choices = Choices()  # each file is judged for itself
    row.interface, row.readers = by_interface(payload, judged.frames, pool)
    return row


def worst_psnr(frames: Frames, truth: Frames) -> float:
    """Return the lowest PSNR (dB) of a frame against the film's frame of the same number."""
    pairs = [(a, b) for a, b in zip(frames, truth, strict=False) if a.shape == b.shape]
    errors = [float(np.mean((a.astype(np.float32) - b) ** 2)) for a, b in pairs]
    if not errors:
        return 0.0
    return float(10 * np.log10(255**2 / max([*errors, LEAST_ERROR])))


def in_order(frames: Frames, truth: Frames) -> bool:
    """Say whether each frame is nearer to its own frame of the film than to every other."""
    film = truth.astype(np.float32)
    nearest = [int(np.argmin(((film - frame) ** 2).mean((1, 2, 3)))) for frame in frames]
    return nearest == list(range(len(truth)))


def reads_at_random(name: str, payload: bytes, reference: Frames, child: OneChild) -> bool:
    """Say whether a decoder's random access gives the judge's frames, in a shuffled order."""
    indices = np.random.default_rng(0).permutation(len(reference)).tolist()
    request = {"verb": "frames_at", "decoder": name, "indices": indices}
    try:
        _, frames = child.ask(request, payload)
    except ChildFailure:
        return False
    return frames is not None and np.array_equal(frames, reference[indices])


def by_interface(
    payload: bytes, reference: Frames | None, pool: DecoderPool
) -> tuple[str, list[str]]:
    """Return what came of several visits by DecoderPool, and which decoders read them."""
    try:
        facts = pool.probe("file", "video", payload)
    except DecodeError as error:
        return f"refused: {error.reason}", []
    readers: list[str] = []
    info = clip_info(facts, payload)
    for _ in range(VISITS):
        try:
            found = pool.submit(info, payload).result()
        except DecodeError as error:
            return f"refused: {error.reason}", readers
        readers.append(found.decoder)
        if reference is None or not np.array_equal(found.frames, reference):
            return "differs", readers
    return "exact", readers


def cell(row: Row, verdict: Verdict) -> str:
    """Return a table cell for one decoder on one file."""
    words = {Outcome.exact: "exact", Outcome.ended: "**process ended**"}
    text = words.get(verdict.outcome, f"**{verdict.outcome}**")
    if verdict.outcome == Outcome.refused:
        text = "refused"
    elif verdict.outcome == Outcome.unjudged:
        text = f"**reads {verdict.num_frames} frames**"
        if verdict.decoder in row.seen:
            text += f", worst {row.seen[verdict.decoder]:.0f} dB"
    elif verdict.outcome in (Outcome.colours, Outcome.differs):
        text += f": {verdict.reason}"
    if verdict.num_frames:
        text += f", {1e3 * verdict.seconds / verdict.num_frames:.2f} ms"
    if row.random.get(verdict.decoder) is False and verdict.outcome == Outcome.exact:
        text += ", **random access differs**"
    return text.replace("|", "/")


def markdown(rows: Sequence[Row], decoders: Sequence[str]) -> str:
    """Return the matrix as a Markdown table; times are per frame, in a child, on one thread."""
    head = ["file", "judge against film", *decoders, "interface", "first and later visits by"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        film = "-"
        if row.psnr is not None:
            order = "" if row.in_order else ", **order differs**"
            film = f"{row.num_frames} frames, {row.psnr:.1f} dB{order}"
        by = dict.fromkeys(row.readers)
        cells = [cell(row, verdict) for verdict in row.verdicts]
        reason = row.interface.replace("|", "/")
        lines.append([row.case.name, film, *cells, reason, ", ".join(by) or "-"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Return date, processor and versions, one line."""
    names = [n for n in ("av", "decord", "torchcodec", "torch", "numpy") if find_spec(n)]
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today}, {os.cpu_count()} cores {platform.machine()}, {versions}"


def run_matrix(cases: Sequence[Case], decoders: Sequence[str]) -> list[Row]:
    """Examine every file; one that this ffmpeg cannot make is left out and named on stderr."""
    rows: list[Row] = []
    others = [name for name in decoders if name != JUDGE]
    with (
        OneChild(decoders, TIMEOUT_SECONDS) as child,
        DecoderPool(1, TIMEOUT_SECONDS, others) as pool,
        Progress("files", Console(stderr=True)) as progress,
    ):
        for done, case in enumerate(cases):
            progress.update(done, len(cases), case.name)
            try:
                rows.append(examine(case, decoders, child, pool))
            except RuntimeError as error:
                print(f"left out {case.name}: {error}", file=sys.stderr)
    return rows


def update(page: Path, text: str) -> None:
    """Put the measured part into a page, between its two marks. Raises ValueError without them."""
    old = page.read_text()
    start, end = old.find(MARKS[0]), old.find(MARKS[1])
    if not 0 <= start < end:
        raise ValueError(
            f"--update={page}: must hold the lines {MARKS[0]} and {MARKS[1]}. Add them."
        )
    page.write_text(old[: start + len(MARKS[0])] + f"\n\n{text}\n\n" + old[end:])


def main(arguments: list[str] | None = None) -> int:
    """Print the matrix and the speed table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__)
    parser.add_argument("--only", default="", help="examine the files whose name contains this")
    parser.add_argument("--no-speed", action="store_true", help="leave out the speed table")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--update", type=Path, help="also put the tables into this page")
    parser.add_argument("--decoders", nargs="+", default=installed(), help="default: %(default)s")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)
    decoders = [JUDGE, *(name for name in options.decoders if name != JUDGE)]
    cases = [case for case in matrix() if options.only in case.name]
    rows = run_matrix(cases, decoders)
    parts = [f"Measured {machine()}.", markdown(rows, decoders)]
    if not options.no_speed:
        parts.append(speed_table(decoders))
    text = "\n\n".join(parts)
    print(text)
    if options.json:
        plain = partial(json.dumps, indent=1, default=str)
        options.json.write_text(plain([{**asdict(row), "case": row.case.name} for row in rows]))
    if options.update:
        update(options.update, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
