"""Measure how much of the main subject drawn clips show: found by its colour, fitted by its shape.

usage: kinescale framing run=RUN clips=FILE.json root=DATASET out=FILE.json [key=value ...]

Every pixel goes to the nearest of a few colours: two of each subject colour and some of whatever
lies around subjects, all learned from training clips whose truth says where the subject is. The
largest blob of subject colours is the subject. It counts as drawn when it has at least a quarter
of the area that is usual. Where it reaches the frame's edge, its full width is taken to be what its
height says, and the other way round (balls and boxes look about as wide as high), as in

    share = width * height / (full width * full height)

which is 1 for a blob inside the frame. On held-out clips and their square crops, whose truth is
known, the error of that share is measured and reported beside the result.
keys: split=val_worlds train_split=train train_clips=400 check_clips=200
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2
from scipy.ndimage import find_objects, label

from data.derive.crop import crop_truth, square_window
from data.shell import command
from trainer.probes.common import (
    ClipSource,
    Frames,
    Known,
    ProbeConfig,
    read_clip,
    run_probe,
    truths_of,
)

WHOLE_SHARE = 0.9
DRAWN_AREA = 0.25  # of the usual area of a subject
_SUBJECT_COLOURS, _OTHER_COLOURS = 2, 12
_PIXELS = 20_000  # pixels that each set of colours is learned from
_EDGE = 2  # a blob this near to the frame's edge touches it: the codec blurs edges by more
MEASURES = (
    "subject drawn",
    "right colour",
    "one subject",
    "subject inside the frame",
    "subject whole",
)


@dataclass(frozen=True)
class Palette:
    """Colours that pixels are sorted by.

    colours: (N, 3) in the space of :func:`to_space`. names: index into ``subjects`` of each, -1
    for surroundings. area: usual share of a frame's shorter side squared that a subject covers.
    """

    colours: Float[np.ndarray, "N 3"]
    owner: Int[np.ndarray, " N"]
    subjects: list[str]
    area: float

    def sort(self, frames: Frames) -> Int[np.ndarray, "F H W"]:
        """Return which subject colour each pixel is of, -1 for none."""
        points = to_space(frames)  # (F, H, W, 3)
        distance = np.stack([np.square(points - c).sum(-1) for c in self.colours], -1)
        return self.owner[distance.argmin(-1)]


@dataclass(frozen=True)
class Seen:
    """What a frame shows: share of the subject inside, 0 if not drawn, and its colour's name.

    count: blobs that are large enough to be a subject.
    """

    share: float
    colour: str
    count: int = 0


def to_space(frames: np.ndarray) -> np.ndarray:
    """Return opponent colours with halved luma: shading moves a colour less than hue does."""
    rgb = frames.astype(np.float32) / 255
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = (red + green + blue) / 3
    return np.stack([luma / 2, red - green, blue - (red + green) / 2], -1)


def subject_of(truth: dict[str, Any]) -> dict[str, Any]:
    """Return the track of the main subject. Raises ValueError where no object is one."""
    for track in truth["objects"]:
        if track["subject"]:
            found: dict[str, Any] = track
            return found
    raise ValueError("truth.objects: none is the subject. Use clips of kinescale worlds.")


def learn_palette(clips: Iterable[Known]) -> Palette:
    """Learn the colours of subjects and surroundings from clips with truth."""
    inside: dict[str, list[np.ndarray]] = {}
    outside: list[np.ndarray] = []
    areas: list[float] = []
    for clip in clips:
        track = subject_of(clip.truth)
        side = min(clip.frames.shape[1:3])
        for frame, box in zip(clip.frames[::2], track["boxes"][::2], strict=True):
            if box is None:
                continue
            near, far = _window(box, 0.55, frame), _window(box, 1.5, frame)
            inside.setdefault(track["colour"], []).append(frame[near].reshape(-1, 3))
            mask = np.ones(frame.shape[:2], bool)
            mask[far] = False
            outside.append(frame[mask][::7])
            # A ball fills pi / 4 of its box, a box a little more.
            areas.append(0.8 * (box[2] - box[0]) * (box[3] - box[1]) / side**2)
    if not inside:
        raise ValueError("train_split: holds no subject. Use clips of kinescale worlds.")
    names = sorted(inside)
    colours = [_centres(inside[name], _SUBJECT_COLOURS) for name in names]
    owner = [number for number in range(len(names)) for _ in range(_SUBJECT_COLOURS)]
    around = _centres(outside, _OTHER_COLOURS)
    return Palette(
        np.concatenate([*colours, around]),
        np.array(owner + [-1] * len(around)),
        names,
        float(np.median(areas)),
    )


def _window(box: list[float], scale: float, frame: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a box scaled about its middle, cut at the frame."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_x, half_y = scale * (box[2] - box[0]) / 2, scale * (box[3] - box[1]) / 2
    height, width = frame.shape[:2]
    rows = slice(max(0, round(y - half_y)), min(height, max(0, round(y + half_y))))
    return rows, slice(max(0, round(x - half_x)), min(width, max(0, round(x + half_x))))


def _centres(pixels: list[np.ndarray], count: int) -> np.ndarray:
    """Return ``count`` typical colours of pixels (N, 3)."""
    points = to_space(np.concatenate(pixels))
    points = points[:: max(1, len(points) // _PIXELS)].astype(np.float64)
    centres, _ = kmeans2(points, min(count, len(points)), minit="++", seed=0)
    return np.asarray(centres)


def look(frames: Frames, palette: Palette) -> list[Seen]:
    """Find the subject in every frame."""
    sorted_pixels = palette.sort(frames)
    least = DRAWN_AREA * palette.area * min(frames.shape[1:3]) ** 2
    return [_look_at(pixels, palette, least) for pixels in sorted_pixels]


def _look_at(pixels: Int[np.ndarray, "H W"], palette: Palette, least: float) -> Seen:
    blobs, count = label(pixels >= 0)
    if not count:
        return Seen(0.0, "")
    areas = np.bincount(blobs.ravel())[1:]
    largest = int(areas.argmax())
    if areas[largest] < least:
        return Seen(0.0, "")
    inside = blobs == largest + 1
    colour = palette.subjects[int(np.bincount(pixels[inside]).argmax())]
    rows, columns = find_objects(blobs)[largest]
    share = share_in_frame(rows, columns, *pixels.shape)
    return Seen(share, colour, int((areas >= least).sum()))


def share_in_frame(rows: slice, columns: slice, height: int, width: int) -> float:
    """Estimate the share of a round or square body inside the frame from its blob's extent."""
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    cut_x = columns.start < _EDGE or columns.stop > width - _EDGE
    cut_y = rows.start < _EDGE or rows.stop > height - _EDGE
    full_wide = max(wide, high) if cut_x else wide
    full_high = max(wide, high) if cut_y else high
    return wide * high / (full_wide * full_high)


def summarise_clip(seen: list[Seen], colour: str) -> dict[str, float]:
    """Reduce frames to a clip's measures."""
    shares = np.array([frame.share for frame in seen])
    drawn = shares > 0
    right = np.array([frame.colour == colour for frame in seen])
    return {
        "subject drawn": float(drawn.mean() >= 0.5),
        "right colour": float(right.mean() >= 0.5),
        "one subject": float(np.mean([frame.count == 1 for frame in seen]) >= 0.5),
        "subject inside the frame": float(shares.mean()),
        "subject whole": float(shares.mean() >= WHOLE_SHARE),
    }


def check_palette(
    source: ClipSource, palette: Palette, config: ProbeConfig
) -> list[dict[str, Any]]:
    """Measure the probe's errors on held-out clips and on their square crops."""
    found: dict[str, list[tuple[float, float]]] = {"native clips": [], "square crops": []}
    colours: list[bool] = []
    for _, frames, truth in source.read(config.root, config.split, config.check_clips):
        window = square_window(*frames.shape[1:3])
        kept = frames[:, window.top :, window.left :][:, : window.height, : window.width]
        cropped = crop_truth(truth, window, *frames.shape[1:3])
        for name, pixels, known in (
            ("native clips", frames, truth),
            ("square crops", kept, cropped),
        ):
            track = subject_of(known)
            seen = look(source.through_codec(pixels), palette)
            estimate = float(np.mean([frame.share for frame in seen]))
            actual = float(np.mean([share or 0.0 for share in track["in_frame"]]))
            found[name].append((estimate, actual))
            if name == "native clips":
                colours.append(summarise_clip(seen, track["colour"])["right colour"] > 0)
    rows = []
    for name, pairs in found.items():
        table = np.array(pairs)
        rows += _quality(name, table)
    colour = {"measure": "right colour", "what": "native clips: share right"}
    rows.append(colour | {"value": float(np.mean(colours)), "clips": len(colours)})
    return rows


def _quality(name: str, table: Float[np.ndarray, "N 2"]) -> list[dict[str, Any]]:
    """Return the errors of estimates against truths."""
    estimate, actual = table.T
    guess = float(np.abs(actual - np.median(actual)).mean())
    gone: Bool[np.ndarray, " N"] = actual < 0.02
    half: Bool[np.ndarray, " N"] = actual > 0.5
    share = "subject inside the frame"
    rows: list[dict[str, Any]] = [
        {"measure": share, "what": f"{name}: mean absolute error",
         "value": float(np.abs(estimate - actual).mean()), "baseline": guess, "clips": len(table)},
        {"measure": share, "what": f"{name}: bias", "value": float((estimate - actual).mean()),
         "clips": len(table)},
    ]  # fmt: skip
    for what, chosen in (("more than half shown", half), ("none shown", gone)):
        if chosen.any():
            found = {"measure": "subject drawn", "what": f"{name}, {what}: share found"}
            value = float((estimate[chosen] > 0).mean())
            rows.append(found | {"value": value, "clips": int(chosen.sum())})
    return rows


def measure(config: ProbeConfig, source: ClipSource, clips: list[dict[str, str]]) -> dict[str, Any]:
    """Learn, check, and measure the drawn clips."""
    root = config.train_root or config.root
    palette = learn_palette(source.known(root, config.train_split, config.train_clips))
    quality = check_palette(source, palette, config)
    truths = truths_of(config.root, config.split, {clip["key"] for clip in clips})
    found = []
    for clip in clips:
        frames = read_clip(clip["file"])
        colour = subject_of(truths[clip["key"]])["colour"]
        height, width = frames.shape[1:3]
        group = "wide" if width > height else "tall" if height > width else "square"
        values = summarise_clip(look(frames, palette), colour)
        found.append({"file": clip["file"], "group": group, "values": values})
    notes = [
        "The subject is the largest blob of pixels of a subject's colour; where it reaches the "
        "frame's edge, the part outside is worked out from its shape. A clip without a subject "
        "counts as 0 inside the frame."
    ]
    return {"measures": list(MEASURES), "quality": quality, "clips": found, "notes": notes}


@command(__doc__, doing="measuring the drawn clips")
def main(argv: list[str]) -> int:
    """Run the command line; return the exit status."""
    return run_probe(argv, measure)


if __name__ == "__main__":
    main.run()
