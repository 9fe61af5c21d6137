"""The clips that runs of a study will train on, or one that stands in for a missing data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index
from trainer.config import RunConfig
from trainer.diffusion.horizon import Clip

# Where no data set is at hand a clip of 5 x 16 x 16 codec cells stands for it, whose 320 tokens and
# 32 caption tokens are the mean of the demo's clips.
STAND_IN_GRID, STAND_IN_CAPTION = (5, 8, 8), 32


@dataclass(frozen=True)
class StandIn:
    """A clip that nobody stored: source frames and pixels, and the tokens of its caption."""

    num_frames: int
    height: int
    width: int
    caption_tokens: int = STAND_IN_CAPTION
    short_caption: str = ""
    short_caption_tokens: int = 0


class Clips:
    """The clips that runs train on: read once for each data set, or one that stands in for it."""

    def __init__(self, size: tuple[int, int, int] | None = None) -> None:
        self._size = size
        self._read: dict[tuple[str, str], list[SampleInfo] | StandIn] = {}
        self._assumed: dict[str, list[str]] = {}

    def of(self, run: RunConfig) -> Sequence[Clip]:
        """Return the clips of a run's training split, or the one that stands in."""
        found = self._find(run)
        return [found] if isinstance(found, StandIn) else found

    def stored(self, run: RunConfig) -> list[SampleInfo]:
        """Return the clips that were read from a run's data set; none where one stands in."""
        found = self._find(run)
        return [] if isinstance(found, StandIn) else found

    def _find(self, run: RunConfig) -> list[SampleInfo] | StandIn:
        key = run.data.root, run.data.train_split
        if key not in self._read:
            self._read[key] = self._load(run, *key)
        return self._read[key]

    def _load(self, run: RunConfig, root: str, split: str) -> list[SampleInfo] | StandIn:
        if self._size is None and (Path(root) / split).is_dir():
            return read_index(root, split)
        clip = stand_in(run, self._size)
        so = (
            f"so FLOPs a token are those of clips of {clip.num_frames} frames of "
            f"{clip.height} x {clip.width} with a caption of {clip.caption_tokens} tokens. Steps "
            "move with it by a few per cent where attention is a small part of the FLOPs."
        )
        self._assumed.setdefault(so, []).append(f"{root}/{split}")
        return clip

    @property
    def notes(self) -> list[str]:
        """Say what stands in, once for all data sets that are missing."""
        return [
            f"Assumed: {'clip= was given' if self._size else 'there is no data set at '}"
            f"{'' if self._size else ', '.join(roots)}, {so}"
            for so, roots in self._assumed.items()
        ]


def stand_in(run: RunConfig, size: tuple[int, int, int] | None = None) -> StandIn:
    """Return a clip of `size` source (frames, height, width), or of 320 tokens of this run."""
    if size is None:
        counts, cell = STAND_IN_GRID, run.cell
        size = 1 + (counts[0] - 1) * cell[0], counts[1] * cell[1], counts[2] * cell[2]
    return StandIn(*size)
