"""Clips that no pack can hold, cut in time: each piece is planned, named and met as a sample.

A piece has 1 + k * cell frames, as any clip has: its first frame stands alone in time. It begins
with the last frame of the piece before, so that no frame is left out and only those frames are met
twice. Cutting is arithmetic on the index, so that it is the same on every rank and layout; the
clip is decoded to its end and the piece's frames alone are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

from data.dataset.columns import Shape
from data.dataset.sample import SampleInfo
from data.dataset.table import Pieced, Table
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
    if isinstance(dataset.infos, Table):
        return _cut_table(dataset, dataset.infos, cell, pack_tokens)
    infos: list[SampleInfo] = []
    members = []
    for member in dataset.members:
        start = len(infos)
        for info in dataset.infos[member.span.start : member.span.stop]:
            infos += pieces_of(info, cell, pack_tokens)
        members.append(replace(member, span=Span(start, len(infos), member.span.weight)))
    return dataset if len(infos) == len(dataset.infos) else Dataset(infos, members)


def _cut_table(dataset: Dataset, table: Table, cell: Cell, pack_tokens: int) -> Dataset:
    """Cut a data set in columns: how its clips are cut follows from their shapes."""
    spans = [piece_spans(shape, cell, pack_tokens) for shape in table.shapes]
    if all(len(of_shape) == 1 for of_shape in spans):
        return dataset
    lengths = [[last - first + 1 for first, last in of_shape] for of_shape in spans]
    cut = partial(pieces_of, cell=cell, pack_tokens=pack_tokens)
    pieced = Pieced(table, cut, lengths, f"{cell} {pack_tokens}")
    starts = [*pieced.starts([m.span.start for m in dataset.members]), len(pieced)]
    members = [
        replace(member, span=Span(start, stop, member.span.weight))
        for member, (start, stop) in zip(dataset.members, pairwise(starts), strict=True)
    ]
    return Dataset(pieced, members)


def pieces_of(info: SampleInfo, cell: Cell, pack_tokens: int) -> list[SampleInfo]:
    """Return the pieces of a clip, of nearly equal length; the clip itself where it fits."""
    shape = Shape(info.media, info.num_frames, info.height, info.width)
    spans = piece_spans(shape, cell, pack_tokens)
    return [_piece(info, *span) for span in spans] if len(spans) > 1 else [info]


def piece_spans(shape: Shape, cell: Cell, pack_tokens: int) -> list[tuple[int, int]]:
    """Return the first and last frames of a clip's pieces; one pair where it is not cut."""
    frames, height, width = grid(*shape[1:], cell)
    most = pack_tokens // (height * width)  # of the grid's frames in a pack
    if frames <= most or shape.media == "latent" or most < 2:
        return [(0, shape.num_frames - 1)]
    count = -(-(frames - 1) // (most - 1))
    edges = [(frames - 1) * i // count * cell[0] for i in range(count)] + [shape.num_frames - 1]
    return list(pairwise(edges))


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


def num_pieces(infos: Sequence[SampleInfo]) -> int:
    """Count the samples that are pieces of a longer clip."""
    if isinstance(infos, Pieced):
        return infos.num_pieces()
    return 0 if isinstance(infos, Table) else sum(isinstance(info, Piece) for info in infos)
