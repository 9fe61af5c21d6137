"""Clips that no pack can hold, cut in time: each piece is planned, named and met as a sample.

A piece has 1 + k * cell frames, as any clip has: its first frame stands alone in time. It begins
with the last frame of the piece before, so that no frame is left out and only those frames are met
twice. Cutting is arithmetic on the index, so that it is the same on every rank and layout; the
clip is decoded to its end and the piece's frames alone are kept.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

from data.dataset.sample import SampleInfo
from data.dataset.tokens import Cell, grid
from data.loading.mixture import Dataset
from data.loading.stream import Span


@dataclass(frozen=True)
class Piece(SampleInfo):
    """A part of a clip in time: ``num_frames`` frames from ``start_frame`` on of ``whole``.

    Its key is ``KEY:START``, which no sample of an index has: draws and resume tell pieces apart.
    """

    start_frame: int = 0
    whole: SampleInfo | None = field(default=None, hash=False)

    @property
    def last_frame(self) -> int:
        """Number of its last frame in the whole clip."""
        return self.start_frame + self.num_frames - 1


def whole_of(info: SampleInfo) -> SampleInfo:
    """Return the sample of the index that a sample is, or is a piece of."""
    return info.whole if isinstance(info, Piece) and info.whole is not None else info


def cut_long(dataset: Dataset, cell: Cell, pack_tokens: int) -> Dataset:
    """Return a data set whose clips above ``pack_tokens`` are cut; the same one if none is.

    Left as they are: latents, whose first frame alone codes one frame, and clips of which a pack
    does not hold two frames of the token grid. The planner refuses them.
    """
    infos: list[SampleInfo] = []
    members = []
    for member in dataset.members:
        start = len(infos)
        for info in dataset.infos[member.span.start : member.span.stop]:
            infos += pieces_of(info, cell, pack_tokens)
        members.append(replace(member, span=Span(start, len(infos), member.span.weight)))
    return dataset if len(infos) == len(dataset.infos) else Dataset(infos, members)


def pieces_of(info: SampleInfo, cell: Cell, pack_tokens: int) -> list[SampleInfo]:
    """Return the pieces of a clip, of nearly equal length; the clip itself where it fits."""
    frames, height, width = grid(info.num_frames, info.height, info.width, cell)
    most = pack_tokens // (height * width)  # of the grid's frames in a pack
    if frames <= most or info.media == "latent" or most < 2:
        return [info]
    count = -(-(frames - 1) // (most - 1))
    edges = [(frames - 1) * i // count * cell[0] for i in range(count)] + [info.num_frames - 1]
    return [_piece(info, first, last) for first, last in pairwise(edges)]


def _piece(info: SampleInfo, first: int, last: int) -> Piece:
    """Return the frames from first to last, both of them."""
    length = last - first + 1
    values = {name: getattr(info, name) for name in SampleInfo.__dataclass_fields__}
    values |= {
        "key": f"{info.key}:{first}",
        "num_frames": length,
        "duration_seconds": info.duration_seconds * length / info.num_frames,
        "shots": [shot - first for shot in info.shots if first < shot <= last],
    }
    return Piece(**values, start_frame=first, whole=info)
