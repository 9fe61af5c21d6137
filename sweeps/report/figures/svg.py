"""Figures as SVG: one drawing, themed by CSS variables in a page, by plain colours in a file."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

# Each colour is used for one role only, so that it can be replaced by that role's CSS variable.
INK, MUTED, GRID, ACCENT, PAPER = "#1c2128", "#5f6772", "#e3e5e9", "#c2410c", "#fefefe"
ROLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", ACCENT: "--accent", PAPER: "--paper"}
WIDTH = 820  # of a page's figures; a phone scrolls them, smaller text could not be read
# The ends of viridis vanish on white (yellow) and on black (violet).
_LIGHT_SPAN, _DARK_SPAN = (0.04, 0.80), (0.30, 0.98)
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Size:
    """Size of a figure in CSS pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """One figure, with the sentence a screen reader gets."""

    name: str
    alt: str
    svg: str


def draw(name: str, size: Size, build: Callable[[Size], Figure], alt: str) -> Drawing:
    """Draw a figure in the project's style."""
    with figure_style():
        return Drawing(name, alt, svg_text(build(size), name))


def budget_palette(num_budgets: int, dark: bool = False) -> list[str]:
    """Return one viridis colour per budget, dark to light as compute rises."""
    low, high = _DARK_SPAN if dark else _LIGHT_SPAN
    steps = max(num_budgets - 1, 1)
    colormap = matplotlib.colormaps["viridis"]
    return [to_hex(colormap(low + (high - low) * i / steps)) for i in range(num_budgets)]


@contextmanager
def figure_style() -> Iterator[None]:
    """Set matplotlib to quiet axes and text that stays text."""
    settings: dict[Any, Any] = {
        "figure.dpi": 72,  # so that one figure unit is one CSS pixel
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.08,
        "svg.fonttype": "none",
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 12,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "text.color": INK,
        "legend.frameon": False,
        "legend.fontsize": 11,
        "lines.solid_capstyle": "round",
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(size: Size) -> Figure:
    """Return an empty figure of ``size``, outside pyplot's global list."""
    return Figure(figsize=(size.width / 72, size.height / 72), dpi=72)


def svg_text(figure: Figure, name: str) -> str:
    """Return a figure as a bare ``<svg>`` element: no prologue, metadata, foreign URL or stray id.

    name: salts the ids that remain (clip paths, markers), so that figures share a page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([A-Za-z][\w-]*)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r"'?DejaVu Sans'?(, sans-serif)?", _FONTS, text)
    return re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: _short_numbers(m[0]), text).strip()


def _short_numbers(attribute: str) -> str:
    """Return coordinates to a hundredth of a pixel: half the bytes of a page with many runs."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute).replace(" \n", " ")


def inline_svg(svg: str, alt: str, palette: Sequence[str]) -> str:
    """Return the element for a page: colours become CSS variables, ``alt`` its accessible name."""
    for color, variable in ROLES.items():
        svg = svg.replace(color, f"var({variable})")
    for index, color in enumerate(palette):
        svg = svg.replace(color, f"var(--budget-{index})")
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    head, body = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_escape(alt)}">{body}'


def light_colors(palette: Sequence[str]) -> dict[str, str]:
    """Return the value of every CSS variable of a figure in the light theme, for files."""
    budgets = {f"--budget-{index}": color for index, color in enumerate(palette)}
    return {variable: color for color, variable in ROLES.items()} | budgets


def file_svg(svg: str) -> str:
    """Return the text of a file of its own: plain colours on a white ground."""
    head, body = svg.split(">", 1)
    return f'{head}><rect width="100%" height="100%" fill="#ffffff"/>{body}\n'


def _escape(text: str) -> str:
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, safe)
    return text
