"""Flat clips with a known truth: a coloured subject glides over a floor before a wall."""

from pathlib import Path
from typing import Any

import numpy as np

from data.dataset.shards import ShardWriter, write_manifest
from data.media.h264 import encode_h264
from data.worlds.palette import COLOURS
from data.worlds.render.view import share_inside
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth

SUBJECTS = ("red", "green", "blue", "yellow")
SURFACES = ("white", "grey", "black", "teal")
WIDE, TALL = (48, 80), (80, 48)


def film(
    seed: int,
    height: int,
    width: int,
    num_frames: int = 9,
    centre: tuple[float, float] | None = None,
) -> tuple[np.ndarray, dict[str, Any], dict[str, str]]:
    """Return frames, truth and the fields that a sample needs; ``centre`` (x, y) in pixels."""
    rng = np.random.default_rng(seed)
    colour = str(rng.choice(SUBJECTS))
    floor, wall = rng.choice(SURFACES, 2, replace=False).tolist()
    radius = 8.0
    if centre is None:
        along, side = max(height, width), int(rng.integers(2))
        far = along - radius - 3 if side else radius + 3
        centre = (far, height / 2) if width > height else (width / 2, far)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    track = Track("subject", "ball", colour, "large", subject=True)
    for index in range(num_frames):
        frames[index] = np.array(COLOURS[wall]) * 255
        frames[index, height * 2 // 3 :] = np.array(COLOURS[floor]) * 255
        drift = 3.0 * index / max(1, num_frames - 1) - 1.5
        cx, cy = (
            (centre[0], centre[1] + drift) if width > height else (centre[0] + drift, centre[1])
        )
        inside = np.hypot(x - cx, y - cy) < radius
        frames[index][inside] = np.array(COLOURS[colour]) * 255
        box = [cx - radius, cy - radius, cx + radius, cy + radius]
        track.boxes.append(box)
        track.in_frame.append(share_inside(box, height, width))
        track.visible.append(1.0)
        track.positions.append([cx, 0.0, cy])
    attributes: dict[str, str | list[str]] = {
        "subject": f"{colour} ball", "floor": f"{floor} floor", "wall": f"{wall} wall",
    }  # fmt: skip
    camera = CameraTruth("static", "stands still", [52.0, 52.0], [[0.0] * 6] * num_frames)
    shots = [ShotTruth(0, num_frames, "stands still")]
    truth = Truth("rooms", "flat", camera, [track], [], attributes, shots).to_json()
    words = {
        "caption": f"A {colour} ball glides before a {wall} wall over a {floor} floor.",
        "short_caption": f"a {colour} ball",
    }
    return frames, truth, words


def write_clips(root: Path, counts: dict[str, int], sizes: tuple = (WIDE, TALL)) -> Path:
    """Write a data set of clips; seeds of splits do not meet."""
    for number, (split, count) in enumerate(counts.items()):
        with ShardWriter(root, split, 4_000_000) as writer:
            for i in range(count):
                height, width = sizes[i % len(sizes)]
                frames, truth, words = film(number * 100_000 + i, height, width)
                meta = {
                    "key": f"{split}-{i:05d}", "media": "video", "num_frames": len(frames),
                    "height": height, "width": width, "fps": 12.0,
                    "duration_seconds": len(frames) / 12, "source": f"flat/{split}-{i}",
                    "licence": "CC0", "rendered": True,
                    "original": {"height": height, "width": width, "scale": 1.0},
                }  # fmt: skip
                payload = encode_h264(frames, 12.0, crf=12)
                writer.write(meta | words, payload, "mp4", truth)
    write_manifest(root, {"name": "flat"})
    return root
