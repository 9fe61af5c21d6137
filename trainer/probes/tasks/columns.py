"""What rows share: measures clip by clip, and clips whose made frames are replaced."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trainer.probes.tasks.known import MIDDLE, Known, still
from trainer.probes.tasks.measures import state_error
from trainer.probes.tasks.reading import Array, Frames, Path

Clips = Sequence[Frames]


def each(measure: Callable[..., Any], *columns: Sequence[Any]) -> Array:
    """Return a measure of every clip; columns run over clips."""
    return np.array([float(measure(*row)) for row in zip(*columns, strict=True)])


def errors(clip: Known, frames: Frames, made: slice) -> Array:
    """Return the state errors of the frames that were made."""
    found = clip.sure(frames).part(made)
    return state_error(found, clip.path.part(made), MIDDLE[clip.world.name])


def distances(found: Path, at: Array, clip: Known) -> Array:
    """Return how far a body is from places, in pixels."""
    gaps: Array = np.linalg.norm(placed(found, MIDDLE[clip.world.name]) - at, axis=1)
    return gaps


def placed(path: Path, centre: tuple[float, float]) -> Array:
    """Return where a body is; a centre where it is not there."""
    at: Array = np.where(path.seen[:, None], path.at, np.array(centre))
    return at


def keep(frames: Frames, made: slice, given: int) -> Frames:
    """Return a clip whose made frames all repeat one that is given."""
    return join(frames, still(frames[given : given + 1], len(frames)), made)


def join(given: Frames, other: Frames, made: slice) -> Frames:
    """Return a clip whose made frames are another's."""
    joined = given.copy()
    joined[made] = other[made]
    return joined


def shifted(items: Sequence[Any], by: int = 1) -> list[Any]:
    """Return every clip's neighbour."""
    return [*items[by:], *items[:by]]
