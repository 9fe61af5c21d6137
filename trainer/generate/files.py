"""What a drawn clip is written as: MP4, GIF, PNG, a contact sheet, and what is known of it."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.files import write_bytes, write_json
from data.media.h264 import encode_h264

SHEET_FRAMES = 16  # most that a contact sheet shows
GAP = 2  # pixels between them
Frames = UInt8[np.ndarray, "F H W 3"]


def write_clip(files: list[Path], frames: Frames, fps: float, facts: dict[str, Any]) -> None:
    """Write a clip in the format of each file's ending, and its facts inside and beside them.

    The facts stand in the comment of each file and in the JSON beside the first.
    """
    text = json.dumps(facts, ensure_ascii=False)
    payloads = [encode(path.suffix, frames, fps, text) for path in files]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    write_json(files[0].with_name(f"{files[0].name}.json"), facts)
    for path, payload in zip(files[1:] + files[:1], payloads[1:] + payloads[:1], strict=True):
        write_bytes(path, payload)  # the first one last: who waits for it finds the others


def encode(suffix: str, frames: Frames, fps: float, comment: str) -> bytes:
    """Return the bytes of a file of a format, ``comment`` within its metadata."""
    if suffix == ".mp4":
        # One colour for four pixels, as all players know it, where sides are even.
        pixels = "yuv444p" if frames.shape[1] % 2 or frames.shape[2] % 2 else "yuv420p"
        return encode_h264(frames, fps, pixels=pixels, comment=comment)
    buffer = io.BytesIO()
    if suffix == ".gif":
        first, *others = (Image.fromarray(frame) for frame in frames)
        first.save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=round(1000 / fps),
            loop=0,
            comment=comment.encode(),
        )
    else:
        words = PngInfo()
        words.add_itxt("Comment", comment)
        sheet = Image.fromarray(contact_sheet(frames))
        sheet.save(buffer, format="PNG", compress_level=3, pnginfo=words)
    return buffer.getvalue()


def contact_sheet(frames: Frames) -> UInt8[np.ndarray, "H W 3"]:
    """Return frames spread evenly over a clip, first and last among them, row by row."""
    count = min(len(frames), SHEET_FRAMES)
    chosen = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    _, height, width, _ = frames.shape
    sheet = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=np.uint8
    )
    for number, frame in enumerate(chosen):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = frame
    return sheet
