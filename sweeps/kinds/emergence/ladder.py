"""The picture of a study of emergence: what runs of each budget draw, with their numbers below.

A column is a budget's best size, the last one the true clips. Frames of a clip lie one below
another. Above are clips drawn with nothing given, below those that go on from true frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data.files import write_bytes
from data.worlds.tiny.state import Frames
from data.worlds.tiny.world import NUM_FRAMES, SPLICE
from sweeps.kinds.emergence.table import Asked, best_params
from trainer.probes.samples.pictures import unpacked

SCALE, GAP, APART, SIDE = 3, 2, 28, 8  # of the picture's pixels
TITLE, LINE, MARGIN = 24, 30, 14
NARROWEST = 290  # that a column's words fit in
GIVEN, MADE = (150, 150, 165), (40, 160, 90)
INK, NOTE = (20, 20, 20), (90, 90, 90)
NOTHING, GOING_ON = "drawn with nothing given", "going on from {} true frames (grey)"


@dataclass(frozen=True)
class Column:
    """One budget, or the truth. free, continued: clips; lines: what stands below them."""

    title: str
    free: list[Frames]
    continued: list[Frames]
    lines: list[str]
    true: bool = False


def write_ladders(folder: Path, asked: Sequence[Asked], seeds: Sequence[int]) -> list[Path]:
    """Write ``ladder-WORLD.png`` of every world whose clips were kept; return what was written."""
    best = best_params(asked, seeds)
    chosen: dict[float, Asked] = {}
    for each in asked:
        couple = each.couple
        if best.get(couple.budget) == couple.params and couple.seed in seeds and each.drawn:
            chosen.setdefault(couple.budget, each)
    worlds: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for budget in sorted(chosen):
        for world in (chosen[budget].drawn or {})["worlds"]:
            if "shown" in world:
                worlds.setdefault(world["world"], []).append((budget, world))
    written = []
    for name, rungs in worlds.items():
        path = folder / f"ladder-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = BytesIO()
        drawn(columns_of(rungs), note_of(rungs[-1][1])).save(file, "PNG", optimize=True)
        write_bytes(path, file.getvalue())
        written.append(path)
    return written


def columns_of(rungs: Sequence[tuple[float, dict[str, Any]]]) -> list[Column]:
    """Return a column for each budget's answer of one world, and one of the truth."""
    columns = []
    for budget, world in rungs:
        clips = {name: [unpacked(text, NUM_FRAMES) for text in of]
                 for name, of in world["shown"].items()}  # fmt: skip
        title = f"{budget:.2g} FLOPs".replace("+", "")
        columns.append(Column(title, clips["free"], clips["run"], _lines(world["sources"], "run")))
    true = [unpacked(text, NUM_FRAMES) for text in world["shown"]["true"]]
    lines = _lines(world["sources"], "true")
    return [*columns, Column("true clips", true, true, lines, true=True)]


def note_of(world: dict[str, Any]) -> str:
    """Say what the numbers count, and what clips have that nobody drew."""
    sources = world["sources"]
    of = {name: sources[name]["breaks"]["value"] for name in ("static", "wrong")}
    return (
        f"Means of {sources['run']['clips']} clips. Rules broken in 100 frames: a clip that stands "
        f"still breaks {of['static']:.0f}, another clip {of['wrong']:.0f}."
    )


def _lines(sources: dict[str, Any], name: str) -> list[str]:
    of = sources[name]
    away = [at["value"] for at in of["away"] if at["value"] is not None]
    twin = f", twin {sources['twin']['breaks']['value']:.0f}" if name == "run" else ""
    return [
        f"{np.mean(away):.1f} pixels away" if away else "nothing in sight",
        f"{of['breaks']['value']:.0f} rules broken{twin}",
        f"{100 * of['parts']['all']:.0f} % all right",
    ]


def drawn(columns: Sequence[Column], note: str) -> Image.Image:
    """Return the picture, on white."""
    first = columns[0].continued[0]
    high, wide = first.shape[1] * SCALE, first.shape[2] * SCALE
    block = NUM_FRAMES * (high + GAP)
    across = SIDE + len(columns[0].continued) * (wide + 2 * GAP)
    pitch = max(across, NARROWEST) + APART
    tops = [MARGIN + 2 * LINE]
    tops.append(tops[0] + block + LINE + MARGIN)
    below = tops[1] + block + MARGIN
    height = below + (len(columns[0].lines) + 1) * LINE + MARGIN
    words = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(note, font_size=TITLE - 4)
    width = max(len(columns) * pitch - APART, int(words) + 1)
    image = Image.new("RGB", (2 * MARGIN + width, height), "white")
    pen = ImageDraw.Draw(image)
    for top, title in zip(tops, (NOTHING, GOING_ON.format(SPLICE)), strict=True):
        pen.text((MARGIN, top - LINE), title, fill=NOTE, font_size=TITLE - 4)
    for number, column in enumerate(columns):
        left = MARGIN + number * pitch
        pen.text((left, MARGIN), column.title, fill=INK, font_size=TITLE)
        every = NUM_FRAMES if column.true else 0
        _draw_clips(image, (left, tops[0]), column.free, every)
        _draw_clips(image, (left, tops[1]), column.continued, every or SPLICE)
        for line, text in enumerate(column.lines):
            pen.text((left, below + line * LINE), text, fill=INK, font_size=TITLE - 2)
    pen.text((MARGIN, below + len(columns[0].lines) * LINE), note, fill=NOTE, font_size=TITLE - 4)
    return image


def _draw_clips(
    image: Image.Image, corner: tuple[int, int], clips: Sequence[Frames], given: int
) -> None:
    """Draw clips side by side; a bar at their left says how many frames were given."""
    pen, (left, top) = ImageDraw.Draw(image), corner
    for frame in range(NUM_FRAMES):
        x = left + SIDE
        for clip in clips:
            shown = clip[frame].repeat(SCALE, 0).repeat(SCALE, 1)
            image.paste(Image.fromarray(shown), (x, top))
            x += shown.shape[1] + 2 * GAP
        below = top + shown.shape[0]
        ink = GIVEN if frame < given else MADE
        pen.rectangle((left, top, left + SIDE // 2, below - 1), fill=ink)
        top = below + GAP
