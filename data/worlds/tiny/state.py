"""The exact state of a tiny clip: one schema for all worlds, and how well a reader found it.

A state is what decides every pixel. Cutting two of them at a splice and joining the halves gives
the state of the joined clip, since each frame is drawn from its own row alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]  # (F, H, W, 3)
# What a body is in a frame. x, y: its middle in pixels; z: nearness to the eye; width and height in
# pixels; colour: a row of paint.INKS; there: 0 or 1; seen: the share of it that the frame shows.
FIELDS = ("x", "y", "z", "width", "height", "colour", "there", "seen")
X, Y, Z, WIDTH, HEIGHT, COLOUR, THERE, SEEN = range(len(FIELDS))
FULLY = 0.98  # of a body in sight, before its reading is compared


@dataclass(frozen=True)
class State:
    """All that decides a clip.

    kinds: of the N bodies. bodies: (F, N, FIELDS). camera: (F,) the window's place in pixels or the
    eye's angle in radians. light: (F,) grey of the ground, 0 to 1. words: one for each frame, the
    action that led to it, or empty.
    """

    kinds: tuple[str, ...]
    bodies: Array
    camera: Array
    light: Array
    words: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return len(self.bodies)

    def of(self, kind: str) -> Array:
        """Return the bodies of a kind, (F, n, FIELDS)."""
        return self.bodies[:, [name == kind for name in self.kinds]]

    def backwards(self) -> "State":
        """Return the clip in reversed time."""
        return State(
            self.kinds, self.bodies[::-1], self.camera[::-1], self.light[::-1], self.words[::-1]
        )


def make_state(
    kinds: tuple[str, ...],
    bodies: Array,
    light: Array | float,
    camera: Array | float = 0.0,
    words: tuple[str, ...] = (),
) -> State:
    """Build a state; what does not change over the clip may be one number."""
    num_frames = len(bodies)
    return State(
        kinds,
        bodies,
        np.full(num_frames, camera) if np.isscalar(camera) else np.asarray(camera),
        np.full(num_frames, light) if np.isscalar(light) else np.asarray(light),
        words or ("",) * num_frames,
    )


def blank(num_frames: int, num_bodies: int) -> Array:
    """Return bodies of which nothing is there, (F, N, FIELDS)."""
    return np.zeros((num_frames, num_bodies, len(FIELDS)))


def splice(first: State, second: State, frame: int) -> State:
    """Join the first state's frames before ``frame`` to the second's from there on.

    Raises ValueError where the two hold other bodies or lengths.
    """
    if first.kinds != second.kinds or first.num_frames != second.num_frames:
        raise ValueError(
            f"kinds={second.kinds}: halves of one clip must hold the same bodies, {first.kinds}. "
            "Cross two scenes of one world."
        )
    return State(
        first.kinds,
        np.concatenate([first.bodies[:frame], second.bodies[frame:]]),
        np.concatenate([first.camera[:frame], second.camera[frame:]]),
        np.concatenate([first.light[:frame], second.light[frame:]]),
        first.words[:frame] + second.words[frame:],
    )


@dataclass(frozen=True)
class ReaderError:
    """How far a reading is from the state, over bodies wholly in sight.

    position, size: the largest distance in pixels. camera: the largest error of the window's place
    or angle. light: of the ground, 0 to 1. colours, missed, invented: bodies whose colour is wrong,
    that were not found, and that were found and are not there. bodies: how many were compared.
    """

    position: float
    size: float
    camera: float
    light: float
    colours: int
    missed: int
    invented: int
    bodies: int


def compare(true: State, found: State) -> ReaderError:
    """Match the bodies of each frame and kind, nearest first, and return the errors.

    A camera or a light that the reader does not read is NaN there and is not compared.
    """
    position = size = 0.0
    colours = missed = invented = count = 0
    for kind in sorted({*true.kinds, *found.kinds}):
        ours, theirs = true.of(kind), found.of(kind)
        for frame in range(true.num_frames):
            here = ours[frame][(ours[frame, :, THERE] > 0) & (ours[frame, :, SEEN] > 0)]
            there = theirs[frame][theirs[frame, :, THERE] > 0]
            gaps = np.hypot(
                here[:, None, X] - there[None, :, X], here[:, None, Y] - there[None, :, Y]
            )
            pairs = match(gaps)
            hidden = ours[frame][(ours[frame, :, THERE] > 0) & (ours[frame, :, SEEN] <= 0)]
            unpaired = [there[n, COLOUR] for n in range(len(there)) if n not in pairs.values()]
            # What is hidden but for a soft edge may be found or not.
            invented += sum(colour not in hidden[:, COLOUR] for colour in unpaired)
            for body in np.flatnonzero(here[:, SEEN] >= FULLY).tolist():
                count += 1
                if body not in pairs:
                    missed += 1
                    continue
                a, b = here[body], there[pairs[body]]
                position = max(position, float(gaps[body, pairs[body]]))
                size = max(size, abs(a[WIDTH] - b[WIDTH]), abs(a[HEIGHT] - b[HEIGHT]))
                colours += int(a[COLOUR] != b[COLOUR])
    camera, light = farthest(true.camera, found.camera), farthest(true.light, found.light)
    return ReaderError(position, float(size), camera, light, colours, missed, invented, count)


def farthest(true: Array, found: Array) -> float:
    """Return the largest difference, over what was read."""
    known = ~np.isnan(found)
    return float(np.abs(true - found)[known].max()) if known.any() else 0.0


def match(gaps: Array) -> dict[int, int]:
    """Pair rows with columns, the nearest first."""
    pairs: dict[int, int] = {}
    left = gaps.copy()
    for _ in range(min(gaps.shape)):
        row, column = np.unravel_index(int(left.argmin()), left.shape)
        pairs[int(row)] = int(column)
        left[row], left[:, column] = np.inf, np.inf
    return pairs
