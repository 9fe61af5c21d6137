"""Rows of a pack over ranks: who holds which, and the collectives that move them.

Context ranks cut a pack into contiguous parts; tensor ranks cut each part again, since norms,
modulation, embeddings and head work row by row (sequence parallelism, Korthikanti et al. 2022).
The functional collectives of torch carry gradients, and are seen by checkpointing and compilers.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.pack import TokenPack
from trainer.layout.layout import Layout

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_ops = torch.ops._c10d_functional


def padded_rows(rows: int, layout: Layout) -> int:
    """Return the rows of a pack that all ranks can share evenly, at least ``rows``."""
    return -(-rows // layout.row_shards) * layout.row_shards


def own_rows(pack: TokenPack, layout: Layout, rank: int) -> TokenPack:
    """Return the rows of a padded pack that a rank holds; see ``TokenPack`` on positions."""
    if layout.row_shards == 1:
        return pack
    mine = row_slice(len(pack.latent), layout, rank)
    place = layout.coordinates(rank)
    context = len(pack.latent) // layout.cp
    seen = slice(place.cp * context, (place.cp + 1) * context)
    return replace(
        pack,
        latent=pack.latent[mine],
        valid=pack.valid[mine],
        positions=pack.positions[seen],
        place=pack.place[mine],
        segment=pack.segment[mine],
        first_row=mine.start,
        spans=None if pack.spans is None else pack.spans.held(mine),
        periods=None if pack.periods is None else pack.periods[seen],
    )


def row_slice(rows: int, layout: Layout, rank: int) -> slice:
    """Return which of the rows of a pack a rank holds."""
    place = layout.coordinates(rank)
    share = rows // layout.row_shards
    start = (place.cp * layout.tp + place.tp) * share
    return slice(start, start + share)


def gather_rows(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Join the rows of a group's ranks; gradients are summed and go back to their rows."""
    joined = _ops.all_gather_into_tensor(x.contiguous(), group.size(), group.group_name)
    return _ops.wait_tensor(joined)


def scatter_sum(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Sum over a group's ranks, each keeps its own rows of the sum."""
    return finish(start_scatter(x, group))


def start_scatter(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Begin :func:`scatter_sum`; what comes back must go through :func:`finish` before its use."""
    return _ops.reduce_scatter_tensor(x.contiguous(), "sum", group.size(), group.group_name)


def finish(x: Tensor) -> Tensor:
    """Wait for a collective that was begun; on CUDA the device waits, not the host."""
    return _ops.wait_tensor(x)


def exchange(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Send block j of dimension 0 to rank j, and get its block for this rank in its place."""
    split = [x.shape[0] // group.size()] * group.size()
    swapped = _ops.all_to_all_single(x.contiguous(), split, split, group.group_name)
    return _ops.wait_tensor(swapped)


def sum_ranks(x: Tensor, group: "ProcessGroup") -> Tensor:
    """Sum a tensor without gradient over a group; the same bits on every rank."""
    return _ops.wait_tensor(_ops.all_reduce(x.contiguous(), "sum", group.group_name))
