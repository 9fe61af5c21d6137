"""Where the one coloured body of a drawn clip is, in every frame.

The exact readers of tiny worlds ask for pure pixels, which a drawn clip seldom has. Ground, walls
and hubs are grey, so that the spread of a pixel's channels, max - min, grows with the share of it
that an ink covers, exactly: (1 - a) grey + a ink has a times the ink's. What a network leaves of
noise stays below a threshold.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from data.worlds.tiny.paint import NUM_COLOURS, TABLE

Frames = UInt8[np.ndarray, "F H W 3"]
Array = NDArray[np.float64]
NOISE = 28.0  # grey levels between the channels of a pixel: below them it counts as grey
FAINT = 2.0  # pixels of ink: below them nothing is there
_EXCESS = TABLE[:NUM_COLOURS] - TABLE[:NUM_COLOURS].min(1, keepdims=True)  # (K, 3)
_SPREAD = _EXCESS.max(1)  # (K,)
_WAYS = _EXCESS / np.linalg.norm(_EXCESS, axis=1, keepdims=True)


@dataclass(frozen=True)
class Path:
    """The body of a clip.

    at: x and y in pixels, NaN where nothing is there. area: pixels of ink. ink: its colour in each
    frame, a row of ``paint.INKS``, -1 where nothing is there.
    """

    at: Float[np.ndarray, "F 2"]
    area: Float[np.ndarray, " F"]
    ink: Int[np.ndarray, " F"]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """In which frames it is there."""
        return self.ink >= 0

    def part(self, frames: slice) -> "Path":
        """Return some frames of it."""
        return Path(self.at[frames], self.area[frames], self.ink[frames])

    def sure(self, ink: int, area: float) -> "Path":
        """Return it where it has a colour and half to twice an area, elsewhere as not there.

        The middle of noise moves, too: it must not count as a body.
        """
        there = (self.ink == ink) & (self.area >= area / 2) & (self.area <= 2 * area)
        at = np.where(there[:, None], self.at, np.nan)
        return Path(at, self.area, np.where(there, self.ink, -1))

    def scaled(self, times: float) -> "Path":
        """Return it in the pixels of a picture so many times larger."""
        return Path(self.at * times, self.area * times**2, self.ink)


def read_path(frames: Frames, faint: float = FAINT) -> Path:
    """Read the body's middle, area and colour in every frame.

    faint: pixels of ink below which nothing is there.
    """
    pixels = frames.astype(np.float64)
    low = pixels.min(-1, keepdims=True)
    spread = (pixels.max(-1, keepdims=True) - low)[..., 0]  # (F, H, W)
    excess = np.where((spread > NOISE)[..., None], pixels - low, 0.0)
    ink = (excess.sum((1, 2)) @ _WAYS.T).argmax(1)  # (F,)
    share = np.where(spread > NOISE, spread, 0.0) / _SPREAD[ink][:, None, None]
    area = share.sum((1, 2))
    y, x = (np.arange(side) + 0.5 for side in share.shape[1:])
    heavy = np.maximum(area, 1e-9)[:, None]
    at = np.stack([share.sum(1) @ x, share.sum(2) @ y], 1) / heavy
    there = area >= faint
    return Path(np.where(there[:, None], at, np.nan), area, np.where(there, ink, -1))


def light_of(frames: Frames) -> float:
    """Return the ground's grey of a drawn clip, 0 to 1: the median of what has no colour."""
    pixels = frames.reshape(-1, 3).astype(np.float64)
    grey = pixels[pixels.max(1) - pixels.min(1) <= NOISE]
    return float(np.median(grey if len(grey) else pixels)) / 255
