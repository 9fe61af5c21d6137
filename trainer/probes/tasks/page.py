"""The page: a table in Markdown, and one picture of what was given and what was drawn."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.probes.tasks.draws import KNOWN, LONG, WINDOW, Drawn, Worlds
from trainer.probes.tasks.known import edited
from trainer.probes.tasks.reading import Frames

PICTURE = "picture.png"
SCALE, GAP, LABEL, LINE = 4, 3, 200, 16  # of a picture's pixels
GIVEN, MADE = (120, 120, 120), (40, 160, 90)
COLUMNS = ("task", "world", "measure", "drawn (95 % interval)", "ceiling", "floors", "")


def table(result: dict[str, Any]) -> str:
    """Return a row for each measure; a task's name stands once, with its verdict."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in result["tasks"]:
        for number, found in enumerate(row["measures"]):
            floors = ", ".join(
                f"{name} {digits(floor['value'])}{'' if floor['beaten'] else ' (not beaten)'}"
                for name, floor in found["floors"].items()
            )
            verdict = "**reached**" if row["reached"] else "*not reached*"
            cells = [
                row["task"] if not number else "",
                row["world"] if not number else "",
                found["measure"],
                f"{digits(found['value'])} ({digits(found['low'])} to {digits(found['high'])})",
                digits(found["ceiling"]),
                floors or "none",
                verdict if not number else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def digits(value: float) -> str:
    """Return a number with three digits, at most two of them behind its point."""
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    facts = result["run"]
    given = [f"| {row['task']} | {row['given']} |" for row in result["tasks"]]
    lines = [
        "# All tasks of one run, on worlds with truth",
        "",
        f"`make tasks` trains one run of {facts['parameters']:,} parameters and "
        f"{facts['flops'] or 0:.2g} FLOPs on a mixture of tasks and worlds, draws "
        f"{result['clips']} clips of each task and writes this page. What was expected stands in "
        "[the log](../../log.md).",
        "",
        f"![What was given and what was drawn]({PICTURE})",
        "",
        "*Green lines lie under frames that were drawn, grey ones under frames that were given. "
        "The clips are the first ones of each task, not chosen.*",
        "",
        "A task is **reached** where each of its measures beats each of its floors: the 95 % "
        "interval of their difference over clips leaves out zero. Otherwise it is *not reached*.",
        "",
        table(result),
        "",
        "| task | what is given |",
        "|---|---|",
        *given,
        "",
        f"**Drift.** {drift(result)}",
        "",
        "Each measure's formula stands in `trainer/probes/tasks/measures.py`. Positions are read "
        "from the colour of pixels, within 0.12 pixels on true clips. *free* is a clip of the same "
        "prompt with nothing given, *other* the given frame before another true clip. "
        "`tasks.json` holds all figures.",
        "",
    ]
    return "\n".join(lines)


def drift(result: dict[str, Any]) -> str:
    """Say what becomes of a clip window by window."""
    row = next(row for row in result["tasks"] if row["task"].endswith("by windows"))
    told = [
        f"frames {part['frames'][0]} to {part['frames'][1]}: error {digits(part['state error'])} "
        f"pixels, {digits(part['area over the true one'])} of the true area, colour right in "
        f"{digits(part['colour right'])}"
        for part in row["measures"][0]["by_window"]
    ]
    return f"{'; '.join(told)}."


def console(result: dict[str, Any]) -> str:
    """Return the table for a terminal."""
    lines = []
    for row in result["tasks"]:
        lines += ["", f"{row['task']} ({row['world']}): "
                  f"{'reached' if row['reached'] else 'not reached'}"]  # fmt: skip
        for found in row["measures"]:
            floors = ", ".join(
                f"{name} {digits(floor['value'])}" for name, floor in found["floors"].items()
            )
            lines.append(
                f"  {found['measure']:<42} {digits(found['value']):>6} "
                f"({digits(found['low'])} to {digits(found['high'])}), ceiling "
                f"{digits(found['ceiling'])}" + (f", {floors}" if floors else "")
            )
    return "\n".join(lines[1:])


Strip = tuple[str, Frames, set[int]]  # label, frames, those that were given


def picture(worlds: Worlds, drawn: Drawn) -> Image.Image:
    """Return the first clip of every task, below what is true where something is."""
    clips, whole = drawn.clips, set(range(WINDOW))
    first, last = set(range(KNOWN)), set(range(WINDOW - KNOWN, WINDOW))
    strip, dot, damped = worlds.strip[0], worlds.rotor[0], worlds.damped[0]
    lines: list[Strip] = [
        ("strip, true", strip.frames, whole),
        ("image to video", clips["image"][0], {0}),
        ("edit: truth", edited(strip).frames, whole),
        ("edit: the lamp", clips["edit"][0], set()),
        ("rotor, true", dot.frames, whole),
        ("extend forwards", clips["forwards"][0][:WINDOW], first),
        ("extend backwards", clips["backwards"][0], last),
        ("connect", clips["connect"][0], first | last),
        ("damped rotor, true", damped.frames, whole),
        ("backwards, arrow of time", clips["arrow"][0], last),
        ("loop (twice)", np.concatenate([clips["loop"][0]] * 2), set()),
        (f"by windows, {LONG} frames", clips["forwards"][0], first),
        ("prototype", drawn.small[0].repeat(2, 1).repeat(2, 2), set()),
        ("full", clips["prototype"][0], set()),
        ("text: rotor", clips["rotor_text"][0], set()),
        ("text: strip", clips["strip_text"][0], set()),
    ]
    heights = [frames.shape[1] * SCALE + LINE for _, frames, _ in lines]
    widths = [len(frames) * (frames.shape[2] * SCALE + GAP) for _, frames, _ in lines]
    image = Image.new("RGB", (LABEL + max(widths), sum(heights) + LINE), (255, 255, 255))
    pen, top = ImageDraw.Draw(image), LINE // 2
    for (label, frames, given), height in zip(lines, heights, strict=True):
        pen.text((8, top + height // 2 - LINE), label, fill=(0, 0, 0), font_size=14)
        for number, frame in enumerate(frames):
            wide, high = frame.shape[1] * SCALE, frame.shape[0] * SCALE
            left = LABEL + number * (wide + GAP)
            shown = Image.fromarray(frame).resize((wide, high), Image.Resampling.NEAREST)
            image.paste(shown, (left, top))
            ink = GIVEN if number in given else MADE
            pen.rectangle((left, top + high + 1, left + wide - 1, top + high + 3), fill=ink)
        top += height
    return image
