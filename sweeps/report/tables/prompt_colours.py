"""How well a clip shows the colours that its prompt names: a number that needs no data set.

Every pixel counts as the nearest colour of the worlds' palette, in CIELAB with half the weight on
lightness, since light and shade move it. The score is the harmonic mean of two shares: pixels in a
colour that the prompt names, and named colours that fill at least 1 % of the pixels. The codec's
own clip of the prompt scores below 1 (shade, blur, colours out of sight), and a clip of another
prompt far above 0 (they share colours): a score says something beside those two only.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from data.worlds.palette import COLOURS

SEEN = 0.01  # of the pixels, from which a colour counts as shown
MOST_FRAMES = 9  # of a clip that are looked at
LEVEL = 0.9
NAMES = tuple(COLOURS)
_WEIGHTS = (0.5, 1.0, 1.0)
_WHITE = (0.9505, 1.0, 1.089)  # D65
_TO_XYZ = ((0.4124, 0.2126, 0.0193), (0.3576, 0.7152, 0.1192), (0.1805, 0.0722, 0.9505))

Shares = Float[np.ndarray, " K"]


@dataclass(frozen=True)
class Mean:
    """A mean over prompts with its interval, NaN where there is one prompt."""

    value: float
    low: float
    high: float


def colours_named(text: str) -> frozenset[str]:
    """Return the colours of the palette that a prompt names."""
    return frozenset(re.findall(r"[a-z]+", text.lower())) & frozenset(NAMES)


def colour_shares(frames: UInt8[np.ndarray, "F H W 3"]) -> Shares:
    """Return the share of a clip's pixels in each colour of the palette."""
    picks = np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int))
    pixels = frames[picks][:, ::2, ::2].reshape(-1, 3)
    distance = np.stack(
        [((_lab(pixels / 255.0) - one) ** 2 @ np.array(_WEIGHTS)) for one in _palette()], axis=1
    )
    return np.bincount(distance.argmin(1), minlength=len(NAMES)) / len(pixels)


def score(shares: Shares, named: frozenset[str]) -> float:
    """Return the score, 0 to 1; NaN where the prompt names no colour."""
    if not named:
        return math.nan
    places = [NAMES.index(name) for name in sorted(named)]
    in_named, seen = float(shares[places].sum()), float((shares[places] >= SEEN).mean())
    return 2 * in_named * seen / (in_named + seen) if in_named + seen else 0.0


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of finite values with its t interval over them."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return Mean(float(known[0]) if len(known) else math.nan, math.nan, math.nan)
    from scipy import stats  # half a second that pages without drawn clips do not need

    half = stats.t.ppf(0.5 + LEVEL / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return Mean(float(known.mean()), float(known.mean() - half), float(known.mean() + half))


@cache
def _palette() -> Float[np.ndarray, "K 3"]:
    return _lab(np.array([COLOURS[name] for name in NAMES]))


def _lab(rgb: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Return CIELAB of sRGB in 0 to 1 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(_TO_XYZ) / np.array(_WHITE)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
