"""Show a dataset on one page: ``kinescale sheet ROOT`` writes ``ROOT/index.html``.

Clips chosen evenly over each split, histograms of sizes, durations and filter scores with their
thresholds, what became of every frame, and what was left out. The page is one file without scripts
or requests. Names and captions come from foreign files: they are escaped, never markup.
"""

import base64
import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index, read_manifest, read_payload
from data.decode.pool import DecoderPool
from data.files import write_text
from data.shell import command

PAGE_NAME = "index.html"
THUMBNAILS_PER_SPLIT = 24
THUMBNAIL_PIXELS = 36_000  # about 250 x 144
MAX_ROWS = 200
SECONDS_A_CLIP = 60.0
SIZE_ROWS = 12  # distinct sizes shown


@dataclass(frozen=True)
class Thumbnail:
    """One clip on the sheet: a picture, and what to say of it."""

    uri: str
    width: int
    height: int
    caption: str
    details: str


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its place, width and heights in percent, and its words."""

    x: float
    width: float
    kept: float
    left_out: float
    title: str


@dataclass(frozen=True)
class Chart:
    """A histogram: bars, labels of its ends, and thresholds as (position in percent, words)."""

    title: str
    bars: list[Bar]
    low: str
    high: str
    marks: list[tuple[float, str]]
    note: str = ""


def write_sheet(root: Path) -> Path:
    """Write ``ROOT/index.html`` from a finished dataset and return its path.

    Raises ValueError if the manifest or an index cannot be read.
    """
    manifest = read_manifest(root)
    with DecoderPool(1, SECONDS_A_CLIP) as pool:
        splits = [split_view(root, name, split, pool) for name, split in manifest["splits"].items()]
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("sheet.html").render(
        style=(here / "sheet.css").read_text(encoding="utf-8"),
        name=root.name,
        splits=splits,
        frames=frame_rows(manifest),
        filters=[filter_chart(name, f) for name, f in manifest.get("filters", {}).items()],
        rejects=manifest["rejects"][:MAX_ROWS],
        num_rejects=len(manifest["rejects"]),
        warnings=manifest["warnings"][:MAX_ROWS],
    )
    write_text(root / PAGE_NAME, page)
    return root / PAGE_NAME


def split_view(root: Path, name: str, split: dict[str, Any], pool: DecoderPool) -> dict[str, Any]:
    """Return what the page shows of one split."""
    infos = [info for info in read_index(root, name) if info.media != "latent"]
    count = min(THUMBNAILS_PER_SPLIT, len(infos))
    chosen = [infos[i] for i in np.linspace(0, len(infos) - 1, count).round().astype(int)]
    histograms = split["histograms"]
    facts = [
        ("clips", f"{split['clips']:,}"),
        ("images", f"{split['images']:,}"),
        ("frames", f"{split['frames']:,}"),
        ("seconds", f"{split['seconds']:,.0f}"),
        ("tokens", f"{split['tokens']:,}"),
        ("MB", f"{split['bytes'] / 1e6:,.1f}"),
        ("sources", f"{len(split['sources']):,}"),
    ]
    charts = [
        ("Shorter side, pixels", "shorter_side"),
        ("Seconds", "seconds"),
        ("Frames", "num_frames"),
        ("Shape", "aspect_ratio"),
    ]
    return {
        "name": name,
        "facts": facts,
        "thumbnails": [thumbnail(root, name, info, pool) for info in chosen],
        "charts": [count_chart(title, histograms.get(key, {})) for title, key in charts],
        "sizes": sorted(histograms["size"].items(), key=lambda kv: -kv[1])[:SIZE_ROWS],
        "num_sizes": len(histograms["size"]),
        "licences": sorted(split.get("licences", {}).items(), key=lambda kv: -kv[1]),
    }


def thumbnail(root: Path, split: str, info: SampleInfo, pool: DecoderPool) -> Thumbnail:
    """Return the middle frame of a clip at its own shape, in at most ``THUMBNAIL_PIXELS``."""
    payload = read_payload(root, split, info)
    frames = pool.decode(info, payload).frames
    picture = Image.fromarray(frames[len(frames) // 2])
    scale = min(1.0, (THUMBNAIL_PIXELS / (picture.width * picture.height)) ** 0.5)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BOX).save(buffer, "JPEG", quality=82)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    length = f"{info.num_frames} frames, {info.duration_seconds:.1f} s"
    details = f"{info.width}×{info.height}, {length if info.num_frames > 1 else 'image'}"
    return Thumbnail(uri, *size, info.caption, f"{details} · {info.source}")


def count_chart(title: str, counts: dict[str, int]) -> Chart:
    """Return a histogram of named bins; empty bins at both ends are left away."""
    names = list(counts)
    filled = [i for i, name in enumerate(names) if counts[name]]
    names = names[filled[0] : filled[-1] + 1] if filled else []
    values = [counts[name] for name in names]
    bars = bars_of(values, [0] * len(values), [f"{n}: {counts[n]:,}" for n in names])
    return Chart(title, bars, names[0] if names else "", names[-1] if len(names) > 1 else "", [])


def filter_chart(name: str, table: dict[str, Any]) -> Chart:
    """Return a filter's histogram of scores, with its thresholds where they fall inside."""
    edges = table["edges"]
    spans = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)]
    words = [
        f"{span}: {kept:,} kept, {out:,} left out"
        for span, kept, out in zip(spans, table["kept"], table["left_out"], strict=True)
    ]
    bars = bars_of(table["kept"], table["left_out"], words)
    marks = []
    for key, limit in table["thresholds"].items():
        if edges and edges[0] <= limit <= edges[-1]:
            share = 100 * (limit - edges[0]) / (edges[-1] - edges[0])
            marks.append((round(share, 2), f"{key}={limit:g}"))
    said = ", ".join(f"{key}={limit:g}" for key, limit in table["thresholds"].items())
    note = f"{said}: {table['samples_left_out']:,} left out"
    low, high = (f"{edges[0]:.4g}", f"{edges[-1]:.4g}") if edges else ("", "")
    return Chart(name, bars, low, high, marks, note)


def bars_of(kept: list[int], left_out: list[int], words: list[str]) -> list[Bar]:
    """Return bars whose highest fills the drawing."""
    top = max([a + b for a, b in zip(kept, left_out, strict=True)] or [1]) or 1
    width = 100 / max(1, len(kept))
    return [
        Bar(round(i * width, 3), round(width, 3), 100 * a / top, 100 * b / top, text)
        for i, (a, b, text) in enumerate(zip(kept, left_out, words, strict=True))
    ]


def frame_rows(manifest: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Return (what became of them, frames, share of all) for the films' frames."""
    frames = manifest.get("frames", {"read": 0})
    if not frames["read"]:
        return []
    rows = [("in clips", frames["used"]), *frames["dropped"].items()]
    return [(name.replace("_", " "), count, count / frames["read"]) for name, count in rows]


@command(__doc__, doing="drawing the page")
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if len(arguments) != 1:
        raise ValueError(f"ROOT={' '.join(arguments)}: must be one dataset folder. Give one.")
    print(write_sheet(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    main.run()
