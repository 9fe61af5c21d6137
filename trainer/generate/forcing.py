"""Which tokens of a clip go their ways together, where not all of them stand at one time."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from models.spans import SegmentSpans
from trainer.generate.request import Request
from trainer.generate.tasks import Beginning


@dataclass(frozen=True)
class Stairs:
    """The parts of a clip that are drawn one behind the other.

    parts: rows of each, in the order in which they begin. given: rows that are given, which may be
    none. spans: one for each part, then one for what is given, where there is such.
    """

    parts: list[Int[Tensor, " R"]]
    given: Int[Tensor, " G"]
    spans: SegmentSpans


def stairs_of(
    request: Request, beginning: Beginning | None, size: tuple[int, int, int]
) -> Stairs | None:
    """Return the parts of a request of a latent's size; None where one time serves all.

    A frame is a part; all that is free is one without ``lag``. Frames begin next to what is given:
    from the last one on, where that end alone is given.
    """
    given = None if beginning is None else beginning.given
    if not request.lag and (request.given_at == 1 or given is None):
        return None
    if given is None:
        given = torch.zeros(size[0], size[1] // 2, size[2] // 2, dtype=torch.bool)
    free = (~given).flatten(1)  # (f, tokens of a frame)
    rows = torch.arange(free.numel()).view_as(free)
    parts = [row[kept] for row, kept in zip(rows, free, strict=True) if kept.any()]
    if not request.lag:
        parts = [torch.cat(parts)]
    elif given[-1].all() and not given[0].all():
        parts.reverse()
    span = torch.full((free.numel(),), len(parts))
    for number, part in enumerate(parts):
        span[part] = number
    clean = (False,) * len(parts)
    if given.any():
        clean = (*clean, request.given_at == 1)
    return Stairs(parts, rows[~free], SegmentSpans(span, clean))
