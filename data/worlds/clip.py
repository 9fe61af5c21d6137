"""What every rendered world yields: frames, and a caption written from the simulator's truth."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclass
class Clip:
    """One rendered clip.

    frames: uint8 RGB, (F, H, W, 3).
    fps: frames per second of simulated time.
    caption: 8 to 40 words that the simulator's state proves.
    source: the world that was filmed (a map or a map seed); splits are cut by it.
    key: unique name, safe in a shard.
    truth: camera and scene facts for whoever wants more than words (JSON types only).
    """

    frames: UInt8[np.ndarray, "F H W 3"]
    fps: float
    caption: str
    source: str
    key: str
    truth: dict[str, Any] = field(default_factory=dict)


def shape_name(height: int, width: int) -> str:
    """Say in a word how a frame is shaped: landscape, portrait or square."""
    ratio = width / height
    if ratio > 1.1:
        return "landscape"
    return "portrait" if ratio < 1 / 1.1 else "square"
