"""What every world yields: frames, captions written from the simulator's truth, and that truth."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass
class Clip:
    """One rendered clip.

    frames: uint8 RGB, (F, H, W, 3).
    fps: frames per second of simulated time.
    caption: the dense caption, 25 to 80 words (mostly under 60) that the truth proves.
    source: the world that was filmed (a map or a map seed); splits are cut by it.
    key: unique name, safe in a shard.
    short_caption: 5 to 12 words: the main object and the place.
    shots: first frame of every shot after the first.
    truth: see :mod:`data.worlds.truth`; JSON types only.
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    fps: float
    caption: str
    source: str
    key: str
    short_caption: str = ""
    shots: list[int] = field(default_factory=list)
    truth: dict[str, Any] = field(default_factory=dict)


def check_size(num_frames: int, height: int, width: int) -> None:
    """Raise ValueError unless there is a frame and sides of at least 16 pixels."""
    if min(height, width) < 16 or num_frames < 1:
        raise ValueError(
            f"size={num_frames}x{height}x{width}: needs a frame and sides of 16. Use 17x112x192."
        )
