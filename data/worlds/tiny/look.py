"""Reading discs, boxes and tiles back from pixels: shares of inks, their middles, their areas.

A pixel at a soft edge is a mixture of the ground and the inks in the frame. Which inks those are is
told by pure pixels; the shares then follow from three channels by least squares, exactly for up to
three inks. A disc's middle is the mean of its share, its radius comes from its area.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.paint import NUM_COLOURS, TABLE, TILE, WHITE
from data.worlds.tiny.state import Array, Frames

PURE = 30.0  # grey levels within which a pixel is of an ink: mixtures of two stay farther off
FEW = 2  # pure pixels in the clip, before a colour counts as being there
FITS = 3.0  # squared grey levels, of three channels together: what rounding alone leaves
# How many inks may explain a pixel, and whether they must lie purely beside it.
STAGES = ((1, False), (2, True), (3, True), (2, False), (3, False))
STRONG = 0.35  # of a pixel that is of one ink alone, before a mixture beside it may hold that ink
FAINT = 1.0  # pixels in all, under which a colour is not in a frame


def light_of(frames: Frames) -> Array:
    """Return the ground's grey in every frame, 0 to 1: that of the most common grey pixel."""
    found = np.empty(len(frames))
    for index, frame in enumerate(frames):
        pixels = frame.reshape(-1, 3)
        flat = pixels[(pixels == pixels[:, :1]).all(1), 0]
        flat = flat if len(flat) else pixels.mean(1).astype(np.uint8)
        found[index] = np.bincount(flat, minlength=1).argmax() / 255
    return found


def inks_of(frames: Frames, least: int = FEW) -> NDArray[np.int64]:
    """Return the colours of bodies that enough pixels of a clip show purely."""
    gaps = np.abs(frames.reshape(-1, 1, 3).astype(np.float32) - TABLE[:NUM_COLOURS]).max(-1)
    counts = (gaps < PURE).sum(0)
    strongest = np.argsort(-counts, kind="stable")[:3]  # more than three cannot be unmixed
    return np.sort(strongest[counts[strongest] >= least])


def shares(
    frames: Frames, inks: NDArray[np.int64], light: Array
) -> NDArray[np.float64]:  # (F, K, H, W)
    """Return how much of each pixel each ink covers.

    A pixel is explained by as few inks as fit it: by the ground, one ink, two, or three. Inks that
    lie purely beside it come first, since red and green together look like yellow. Grey things
    that are no bodies count as an ink of their own, which is left out.
    """
    num_frames, height, width, _ = frames.shape
    names = [*inks.tolist(), WHITE]
    found = np.zeros((num_frames, len(names), height * width))
    for index in range(num_frames if len(inks) else 0):
        grey = np.round(light[index] * 255)
        basis = (TABLE[names] - grey).T.astype(np.float64)  # (3, K)
        pixels = (frames[index].reshape(-1, 3) - grey).astype(np.float64)
        worst = (pixels**2).sum(1)
        near = np.ones((len(names), height * width), bool)
        for stage, (number, local) in enumerate(STAGES):
            if stage == 1:
                pure = (found[index] > STRONG) & (worst <= FITS)
                near = around(pure.reshape(-1, height, width))
                near[-1] = True
            open_ = np.flatnonzero(worst > FITS)
            best, weights = worst[open_], found[index][:, open_]
            for group in map(list, combinations(range(len(names)), number)):
                if not len(open_):
                    break
                share = np.clip(np.linalg.pinv(basis[:, group]) @ pixels[open_].T, 0, 1)
                gap = ((basis[:, group] @ share - pixels[open_].T) ** 2).sum(0)
                better = gap < best
                if local:
                    better &= near[group][:, open_].all(0)
                weights[:, better] = 0
                weights[np.ix_(np.array(group), np.flatnonzero(better))] = share[:, better]
                best = np.where(better, gap, best)
            worst[open_], found[index][:, open_] = best, weights
    return found[:, :-1].reshape(num_frames, len(inks), height, width)


def around(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels have a solid one among their eight neighbours; (K, H, W) to (K, H W)."""
    grown = np.pad(solid, ((0, 0), (1, 1), (1, 1)))
    rows = grown[:, 2:] | grown[:, 1:-1] | grown[:, :-2]
    near = rows[:, :, 2:] | rows[:, :, 1:-1] | rows[:, :, :-2]
    return near.reshape(len(solid), -1)


def middle(share: Array) -> tuple[float, float, float]:
    """Return x, y and the area of a share of pixels (H, W)."""
    area = float(share.sum())
    y, x = (np.arange(n) + 0.5 for n in share.shape)
    return float(share.sum(0) @ x / area), float(share.sum(1) @ y / area), area


def diameter(area: float) -> float:
    """Return the diameter of the disc that covers an area (see paint.py)."""
    return 2 * float(np.sqrt(max(area / np.pi - 1 / 12, 0.0)))


def clumps(share: Array, least: float = 0.4) -> list[Array]:
    """Divide a share of pixels (H, W) into connected ones; soft pixels go to the nearest."""
    solid = share > least
    labels = np.where(solid, np.arange(1, share.size + 1).reshape(share.shape), 0)
    while True:
        grown = np.pad(labels, 1)
        ways = [grown[1:-1, 1:-1], grown[2:, 1:-1], grown[:-2, 1:-1], grown[1:-1, 2:]]
        most = np.where(solid, np.max([*ways, grown[1:-1, :-2]], 0), 0)
        if (most == labels).all():
            break
        labels = most
    names = np.unique(labels[labels > 0])
    y, x = np.mgrid[: share.shape[0], : share.shape[1]]
    middles = [(x[labels == name].mean(), y[labels == name].mean()) for name in names]
    if not middles:
        return []
    nearest = np.argmin([np.hypot(x - column, y - row) for column, row in middles], 0)
    return [share * (nearest == number) for number in range(len(middles))]


def cells_of(frames: Frames, icons: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the icon (I, 4, 4, 3) that each tile of four pixels is most like, (F, h, w)."""
    num_frames, height, width, _ = frames.shape
    tiles = frames.reshape(num_frames, height // TILE, TILE, width // TILE, TILE, 3)
    tiles = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(
        num_frames, height // TILE, width // TILE, 1, -1
    )
    gaps = np.abs(tiles.astype(np.int16) - icons.reshape(len(icons), -1).astype(np.int16)).sum(-1)
    return gaps.argmin(-1)
