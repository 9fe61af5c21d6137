"""What a clip looks like in a few bits, to find its like."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

HASH_SIDE = 32  # pixels to which a frame is reduced (Zauner, "Implementation and benchmarking of


KEPT_SIDE = 8  # perceptual image hash functions", 2010): its 8 x 8 lowest frequencies are kept


STILL_LEVEL = 0.5  # mean change in grey levels under which the moves are only noise


def frame_hash(small: Float[np.ndarray, "32 32"]) -> Bool[np.ndarray, "64"]:
    """Return 64 bits: which of an image's lowest cosine frequencies are over their median."""
    low = cv2.dct(small)[:KEPT_SIDE, :KEPT_SIDE].ravel()
    return low > np.median(low[1:])


def reduced(image: np.ndarray) -> Float[np.ndarray, "32 32"]:
    """Return an image squeezed to a small square, so that size and shape do not matter."""
    side = (HASH_SIDE, HASH_SIDE)
    return cv2.resize(image.astype(np.float32), side, interpolation=cv2.INTER_AREA)


def fingerprint(greys: UInt8[np.ndarray, "F H W"]) -> str:
    """Return the fingerprint of a clip or picture as hexadecimal digits."""
    last = len(greys) - 1
    chosen = [greys[index] for index in (0, last // 2, last)]
    if max(cv2.mean(cv2.absdiff(chosen[0], other))[0] for other in chosen[1:]) < STILL_LEVEL:
        middle = chosen[1]
        top, left = middle.shape[0] // 2, middle.shape[1] // 2
        parts = [middle[: top + 1], middle[top:], middle[:, : left + 1]]
        images = [reduced(image) for image in (*chosen, *parts)]
    else:
        first, mid, end = (reduced(image) for image in chosen)
        images = [first, mid, end, mid - first, end - mid, end - first]
    return np.packbits(np.concatenate([frame_hash(image) for image in images])).tobytes().hex()
