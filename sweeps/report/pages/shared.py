"""What the pages of all kinds of study are made with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from sweeps.report import wording
from sweeps.report.figures.svg import Drawing, budget_palette, inline_svg, light_colors
from sweeps.report.inputs.isoflop import Json, file_inside
from sweeps.report.tables import isoflop as tables
from sweeps.report.video import video_data_uri

_HERE = Path(__file__).parent
_POWER = re.compile(r"\^(?:\(([^()]+)\)|(-?[\d.]*\d|[a-z]+(?:_[A-Z])?))")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]?\d+)(?![\w.]*\w)")
_ENVIRONMENT_FIRST = ("python", "torch", "cpu", "gpu", "cores", "memory", "git")


@dataclass(frozen=True)
class Video:
    """A cell of the ladder: ``uri`` is None where the file is missing. score: under it, as text."""

    uri: str | None
    label: str
    score: str = ""


def template(name: str) -> Template:
    """Return a page's template; it escapes every value."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["typeset"] = typeset
    return environment.get_template(name)


def page_parts(num_colors: int) -> dict[str, Any]:
    """Return what all pages share: style sheet, script, and the colours of both themes."""
    light = budget_palette(num_colors)
    return {
        "css": read_part("page.css"),
        "script": read_part("page.js"),
        "palettes": {"light": light, "dark": budget_palette(num_colors, dark=True)},
        "colors": light_colors(light),
    }


def read_part(name: str) -> Markup:
    """Return a script or a style sheet of this folder, as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def typeset(text: str) -> Markup:
    """Return escaped text with ``x^y`` and ``1.1e+11`` raised and no line break before ``%``."""
    safe = str(escape(text)).replace(" %", "\u00a0%")
    safe = re.sub(_POWER, lambda found: f"<sup>{found[1] or found[2]}</sup>", safe)
    return Markup(re.sub(_SCIENTIFIC, _power_of_ten, safe))


def _power_of_ten(found: re.Match[str]) -> str:
    mantissa = "" if found[1] == "1" else f"{found[1]}×"
    return f"{mantissa}10<sup>{int(found[2])}</sup>".replace("-", "−")


def show_drawing(drawing: Drawing, palette: list[str]) -> Markup:
    """Return a figure as an element for a page."""
    # Safe by construction: matplotlib escapes text, inline_svg the accessible name.
    return Markup(inline_svg(drawing.svg, drawing.alt, palette))


def environment_table(env: Json) -> tables.Table | None:
    """Return the machine and its packages, None where nothing is known."""
    known = [(key, tables.show_value(env[key])) for key in _ENVIRONMENT_FIRST if key in env]
    rest = [(k, tables.show_value(v)) for k, v in env.items() if k not in _ENVIRONMENT_FIRST
            and not isinstance(v, dict)]  # fmt: skip
    nested = [(f"{k} · {name}", tables.show_value(item)) for k, v in env.items()
              if isinstance(v, dict) for name, item in v.items()]  # fmt: skip
    rows = [(wording.heading(key), value) for key, value in [*known, *rest, *nested]]
    return tables.pairs_table("Environment", rows) if rows else None


def video_cell(study_dir: Path, notes: list[str], name: object, label: str) -> Video:
    """Return a cell with the video of a file; one that is missing or outside becomes a note."""
    path = file_inside(study_dir, name)
    if path is None:
        notes.append(f"The video {name!r} is missing or outside the study's folder.")
        return Video(None, label)
    return Video(video_data_uri(path), label)
