"""Account for a dataset: what went in, at what size, and what was left out, as dict and tables."""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from data.config import IngestConfig
from data.dataset.tokens import cell_of, tokens
from data.media.filters import FILTERS
from data.words import counted

RATIO_EDGES = (("portrait", 0.0), ("square", 0.9), ("landscape", 1.12), ("wide", 1.9))
MAX_NOTES = 4
MAX_REJECTS = 40
TOKEN_EDGES = (64, 128, 192, 256, 320, 384, 448, 512, *(2**power for power in range(10, 21)))
SIDE_EDGES = (64, 96, 128, 180, 240, 360, 480, 720, 1080, 2160)  # pixels of the shorter side
SECOND_EDGES = (0.25, 0.5, 1, 2, 5, 10, 20, 60)
SCORE_BINS = 24
PIXEL_COUNTS = ("read", "in_clips", "kept")


def ratio_name(height: int, width: int) -> str:
    """Name the class of an aspect ratio (width over height)."""
    return [name for name, least in RATIO_EDGES if width / height >= least][-1]


def histogram(values: Iterable[Any]) -> dict[str, int]:
    """Count values, in ascending order."""
    return {str(value): count for value, count in sorted(Counter(values).items())}


def token_bin(value: int) -> int:
    """Return the upper edge of a token count's bin."""
    return next((edge for edge in TOKEN_EDGES if value <= edge), value)


def binned(values: list[float], edges: tuple[float, ...]) -> dict[str, int]:
    """Count values by the upper edge of their bin; the last bin has none."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_left(edges, value)] += 1
    names = [f"<={edge:g}" for edge in edges] + [f">{edges[-1]:g}"]
    return dict(zip(names, counts, strict=True))


def summarise_split(metas: list[dict[str, Any]], config: IngestConfig) -> dict[str, Any]:
    """Count one split: clips, frames, tokens, bytes, shapes, durations, scaling, sources."""
    cell = cell_of(config)
    counts = [tokens(m["num_frames"], m["height"], m["width"], cell) for m in metas]
    kept = [m["num_frames"] * m["height"] * m["width"] for m in metas]
    scales = [m["original"].get("scale", 1.0) for m in metas]
    stretches = [abs(m["original"].get("stretch", 0.0)) for m in metas]
    native = sum(
        m["num_frames"]
        * m["original"].get("height", m["height"])
        * m["original"].get("width", m["width"])
        for m in metas
    )
    covered = sum(counts) * math.prod(cell[1:])
    filled = sum(
        (1 + -(-(m["num_frames"] - 1) // cell[0])) * m["height"] * m["width"] for m in metas
    )
    real = [c for c, m in zip(counts, metas, strict=True) if not m["rendered"]]
    sources: dict[str, dict[str, Any]] = {}
    for m, count in zip(metas, counts, strict=True):
        entry = sources.setdefault(
            m["source"], {"licence": m["licence"], "samples": 0, "tokens": 0}
        )
        entry["samples"] += 1
        entry["tokens"] += count
    return {
        "samples": len(metas),
        "clips": sum(m["media"] == "video" for m in metas),
        "images": sum(m["media"] == "image" for m in metas),
        "frames": sum(m["num_frames"] for m in metas),
        "tokens": sum(counts),
        "tokens_real": sum(real),
        "tokens_smallest": min(counts),
        "tokens_largest": max(counts),
        "bytes": sum(m["nbytes"] for m in metas),
        "seconds": round(sum(m["duration_seconds"] for m in metas), 3),
        "edge_padding_share": round(1 - filled / covered, 5),
        "downscale": {
            "clips_scaled": sum(scale < 0.999 for scale in scales),
            "clips": len(metas),
            "source_pixels": native,
            "kept_pixels": sum(kept),
            "smallest_scale": min(scales),
            "clips_stretched": sum(share > 0 for share in stretches),
            "largest_stretch": max(stretches),
        },
        "histograms": {
            "size": histogram(f"{m['width']}x{m['height']}" for m in metas),
            "num_frames": histogram(m["num_frames"] for m in metas),
            "duration_seconds": histogram(round(m["duration_seconds"], 1) for m in metas),
            "aspect_ratio": histogram(ratio_name(m["height"], m["width"]) for m in metas),
            "tokens": {f"<={int(k):04d}": n for k, n in histogram(map(token_bin, counts)).items()},
            "shorter_side": binned([min(m["height"], m["width"]) for m in metas], SIDE_EDGES),
            "seconds": binned([m["duration_seconds"] for m in metas], SECOND_EDGES),
        },
        "licences": histogram(m["licence"] for m in metas),
        "sources": sources,
    }


def summarise(
    samples: dict[str, list[dict[str, Any]]],
    rejects: list[dict[str, Any]],
    warnings: list[str],
    config: IngestConfig,
    films: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the manifest's account of all splits, what was left out, and the settings."""
    splits = {name: summarise_split(metas, config) for name, metas in samples.items()}
    return {
        "cell": list(config.cell),
        "token_cap": config.token_cap,
        "max_frames": config.max_frames,
        "splits": splits,
        "frames": summarise_films(films),
        "pixels": summarise_pixels(splits, films),
        "filters": summarise_filters(samples, rejects, config),
        "rejects": rejects,
        "warnings": warnings,
        "films": films,
    }


def summarise_films(films: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what became of the frames of all films."""
    dropped: Counter[str] = Counter()
    for film in films:
        dropped.update(film["dropped"])
    return {
        "films": len(films),
        "shots": sum(len(film["shots"]) for film in films),
        "read": sum(film["num_frames"] for film in films),
        "used": sum(film["used"] for film in films),
        "dropped": dict(sorted(dropped.items())),
        "remuxed_clips": sum(film["remuxed_clips"] for film in films),
    }


def summarise_pixels(
    splits: dict[str, dict[str, Any]], films: list[dict[str, Any]]
) -> dict[str, int]:
    """Count source pixels: all that were read, those of frames in clips, and those kept of them.

    Pictures that were left out count as not read: nothing is known of their sizes.
    """
    scaled = [split["downscale"] for split in splits.values()]
    in_clips = sum(down["source_pixels"] for down in scaled)
    lost = sum((film["num_frames"] - film["used"]) * film["pixels"] for film in films)
    kept = sum(down["kept_pixels"] for down in scaled)
    return dict(zip(PIXEL_COUNTS, (in_clips + lost, in_clips, kept), strict=True))


def pixel_line(manifest: dict[str, Any]) -> str:
    """Say what share of the pixels that were read a dataset keeps, and why not the others."""
    pixels = manifest.get("pixels")  # manifests of before 2026-12-01 have none
    if pixels is None:
        return "pixels kept: not counted when this dataset was made"
    read, in_clips, kept = (pixels[name] / max(pixels["read"], 1) for name in PIXEL_COUNTS)
    return (
        f"pixels kept: {kept:.1%} of those read ({read - in_clips:.1%} are in frames that no clip "
        f"holds, {max(0.0, in_clips - kept):.1%} were scaled away by "
        f"token_cap={manifest['token_cap']}); {stretch_words(manifest)}"
    )


def stretch_words(manifest: dict[str, Any]) -> str:
    """Say how much the shape of pictures changed where their sides were rounded to pixels."""
    scaled = [split["downscale"] for split in manifest["splits"].values()]
    largest = max((down.get("largest_stretch", 0.0) for down in scaled), default=0.0)
    if not largest:
        return "no pixel is stretched"
    clips = sum(down["clips_stretched"] for down in scaled)
    return f"{counted(clips, 'sample')} stretched by at most {largest:.2%}, as sides are whole"


def summarise_filters(
    samples: dict[str, list[dict[str, Any]]], rejects: list[dict[str, Any]], config: IngestConfig
) -> dict[str, Any]:
    """Return each filter's thresholds, how many it left out, and a histogram of its scores.

    ``edges`` has one value more than ``kept`` and ``left_out``, which count samples by bin.
    """
    thresholds = {rule.name: {rule.key: rule.limit(config)} for rule in FILTERS}
    thresholds["duplicate"] = {k: getattr(config, k) for k in ("duplicate_bits", "repeat_bits")}
    table: dict[str, Any] = {}
    for name, limits in thresholds.items():
        metas = [meta for metas in samples.values() for meta in metas]
        kept = [m["scores"][name] for m in metas if name in m.get("scores", {})]
        out = [r["score"] for r in rejects if r.get("filter") == name]
        edges = score_edges([*kept, *out])
        table[name] = {
            "thresholds": limits,
            "samples_left_out": len(out),
            "edges": edges,
            "kept": count_bins(kept, edges),
            "left_out": count_bins(out, edges),
        }
    return table


def score_edges(scores: list[float]) -> list[float]:
    """Return the edges of ``SCORE_BINS`` equal bins over scores, none where there are no scores."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    width = (high - low or 1.0) / SCORE_BINS
    return [round(low + i * width, 6) for i in range(SCORE_BINS + 1)]


def count_bins(values: list[float], edges: list[float]) -> list[int]:
    """Count values by the bins between edges; those on an inner edge belong to the upper bin."""
    counts = [0] * max(0, len(edges) - 1)
    for value in values:
        counts[min(len(counts) - 1, max(0, bisect_right(edges, value) - 1))] += 1
    return counts


def print_report(manifest: dict[str, Any], console: Console) -> None:
    """Print the account of a dataset, and a table of what was left out."""
    table = Table(title="Dataset", title_justify="left")
    for column in ("", *manifest["splits"]):
        table.add_column(column, justify="left" if not column else "right")
    for label, values in report_rows(manifest):
        table.add_row(label, *values)
    console.print(table)
    for warning in manifest["warnings"][:MAX_NOTES]:
        console.print(f"note: {warning}", markup=False, highlight=False)
    if len(manifest["warnings"]) > MAX_NOTES:
        more = len(manifest["warnings"]) - MAX_NOTES
        console.print(f"note: {more} more under 'warnings' in manifest.json", highlight=False)
    if manifest["rejects"]:
        rejects = Table(title=f"Left out: {len(manifest['rejects'])}", title_justify="left")
        for column in ("file", "reason", "remedy"):
            rejects.add_column(column, overflow="fold")
        for entry in manifest["rejects"][:MAX_REJECTS]:
            # Names come from foreign files: shown as text, never as markup or control characters.
            rejects.add_row(*(printable(entry[name]) for name in ("file", "reason", "remedy")))
        console.print(rejects)
        more = len(manifest["rejects"]) - MAX_REJECTS
        if more > 0:
            console.print(f"{more} more under 'rejects' in manifest.json", highlight=False)


def print_share(config: IngestConfig, console: Console) -> int:
    """Say that a share of the parts is built; return the exit status."""
    said = f"share {config.share} is there; the command without share= puts all together"
    console.print(said, highlight=False)
    return 0


def printable(text: str, most: int = 160) -> Any:
    """Return text that cannot steer a terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "?" for c in text)[:most])


def report_rows(manifest: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return (label, one cell per split) for the dataset table."""
    splits = list(manifest["splits"].values())

    def top(split: dict[str, Any], name: str, most: int = 6) -> str:
        counts = split["histograms"][name]
        shown = list(counts.items())[:most]
        more = [f"+{len(counts) - most} more"] if len(counts) > most else []
        return "\n".join([f"{value}: {count}" for value, count in shown] + more)

    def scaling(split: dict[str, Any]) -> str:
        down = split["downscale"]
        share = down["kept_pixels"] / max(1, down["source_pixels"])
        return f"{down['clips_scaled']} clips\n{share:.1%} of pixels kept"

    return [
        ("sources", [str(len(s["sources"])) for s in splits]),
        ("video clips", [f"{s['clips']:,}" for s in splits]),
        ("images", [f"{s['images']:,}" for s in splits]),
        ("frames", [f"{s['frames']:,}" for s in splits]),
        ("tokens", [f"{s['tokens']:,}" for s in splits]),
        ("tokens, real", [f"{s['tokens_real'] / s['tokens']:.1%}" for s in splits]),
        ("tokens a clip", [f"{s['tokens_smallest']}-{s['tokens_largest']}" for s in splits]),
        ("seconds", [f"{s['seconds']:,.0f}" for s in splits]),
        ("MB", [f"{s['bytes'] / 1e6:.1f}" for s in splits]),
        ("aspect", [top(s, "aspect_ratio") for s in splits]),
        ("frames a clip", [top(s, "num_frames") for s in splits]),
        (f"scaled to token_cap={manifest['token_cap']}", [scaling(s) for s in splits]),
        ("edge padding", [f"{s['edge_padding_share']:.1%}" for s in splits]),
    ]
