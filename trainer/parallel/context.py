"""Context parallelism: attention over rows that lie on several ranks.

Each context rank holds a contiguous part of the rows of a pack and all heads. Around the attention
an all-to-all trades rows for heads among neighbours, so that each rank sees all of their rows in
some heads (DeepSpeed-Ulysses, Jacobs et al. 2023). There can be no more neighbours than heads:
ranks with the same heads of other rows gather each other's keys and values, and attend with their
own queries (Llama 3, Dubey et al. 2024, section 3.3.2). Segments of any length and any place need
no further care.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from models.architecture import Reads, Specification
from models.attention import Attend
from models.pack import Ragged
from trainer.parallel.rows import exchange, gather_rows

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def spread_attention(
    model: nn.Module,
    facts: Specification,
    place: int,
    heads: "ProcessGroup | None",
    keys: "ProcessGroup | None",
) -> None:
    """Make the attention of every block that the model holds work on this rank's rows.

    place: among all context ranks. heads, keys: groups that trade heads and that gather keys, see
    ``trainer.parallel.mesh.split_context``.
    """
    modules, own_captions = dict(model.named_modules()), _own_part_of(place)
    own_keys = None if keys is None else _own_part_of(keys.rank())
    for number in range(facts.depth):
        for attention in facts.block.attentions:
            module: Any = modules.get(f"blocks.{number}.{attention.module}")
            if module is None:
                continue
            if attention.keys is not Reads.rows:  # captions, which every rank holds
                module.attend = _own_queries(module.attend, own_captions)
                continue
            if keys is not None and own_keys is not None:
                module.attend = _gathered(module.attend, own_keys, keys)
            if heads is not None:
                module.attend = _ulysses(module.attend, heads)


def _ulysses(attend: Attend, group: "ProcessGroup") -> Attend:
    def over_ranks(q: Tensor, k: Tensor, v: Tensor, q_rows: Ragged, k_rows: Ragged) -> Tensor:
        q, k, v = _rows_to_heads(torch.stack([q, k, v], dim=1), group).unbind(1)
        return _heads_to_rows(attend(q, k, v, q_rows, k_rows), group)

    return over_ranks


def _gathered(attend: Attend, part: "OwnPart", group: "ProcessGroup") -> Attend:
    """Attend with own queries to the keys and values of all rows, gathered in their order."""
    own = _own_queries(attend, part)

    def over_ranks(q: Tensor, k: Tensor, v: Tensor, q_rows: Ragged, k_rows: Ragged) -> Tensor:
        k, v = gather_rows(torch.stack([k, v], dim=1), group).unbind(1)
        return own(q, k, v, q_rows, k_rows)

    return over_ranks


def _rows_to_heads(x: Tensor, group: "ProcessGroup") -> Tensor:
    """(R, 3, N, E) of own rows and all heads -> (cp R, 3, N / cp, E) of all rows, own heads."""
    heads = x.unflatten(2, (group.size(), -1))  # (R, 3, cp, N / cp, E)
    return exchange(heads.movedim(2, 0).flatten(0, 1), group)


def _heads_to_rows(x: Tensor, group: "ProcessGroup") -> Tensor:
    """(cp R, N / cp, E) of all rows and own heads -> (R, N, E) of own rows, all heads."""
    heads = exchange(x, group).unflatten(0, (group.size(), -1))  # (cp, R, N / cp, E)
    return heads.movedim(0, 1).flatten(1, 2)


# (query segments, key segments, own rows) -> their queries and keys, and where the keys lie
OwnPart = Callable[[Ragged, Ragged, int], tuple[Ragged, Ragged, slice] | None]


def _own_part_of(place: int) -> OwnPart:
    """Return what tells the place-th part of all rows, computed once a pack.

    All blocks ask, and again where they are recomputed: each answer would copy offsets to a device.
    """
    known: dict[tuple[int, int], tuple[Any, Any]] = {}

    def own_part(q_rows: Ragged, k_rows: Ragged, rows: int) -> Any:
        name = (id(q_rows), id(k_rows))
        if name not in known:
            # Forgotten with the pack, whose ids another may then have.
            alive = [ref(x, lambda _: known.pop(name, None)) for x in (q_rows, k_rows)]
            known[name] = alive, _own_part(q_rows, k_rows, place * rows, rows)
        return known[name][1]

    return own_part


def _own_queries(attend: Attend, own_part: OwnPart) -> Attend:
    """Attend with this rank's queries, its part of all rows, to keys of all segments."""

    def on_own_rows(q: Tensor, k: Tensor, v: Tensor, q_rows: Ragged, k_rows: Ragged) -> Tensor:
        own = own_part(q_rows, k_rows, len(q))
        if own is None:  # all padding: no output, but gradients (of zeros) for every parameter
            return torch.zeros_like(q) + q[:0].sum() + k[:0].sum() + v[:0].sum()
        queries, keys, where = own
        return attend(q, k[where], v[where], queries, keys)

    return on_own_rows


def _own_part(
    q_rows: Ragged, k_rows: Ragged, first: int, rows: int
) -> tuple[Ragged, Ragged, slice] | None:
    """Return the segments that rows [first, first + rows) touch, and where their keys lie."""
    overlaps = _overlaps(q_rows.lengths, first, first + rows)
    touched = [i for i, overlap in enumerate(overlaps) if overlap]
    if not touched:
        return None
    own = slice(touched[0], touched[-1] + 1)
    start = sum(k_rows.lengths[: own.start])
    keys = Ragged.of(k_rows.lengths[own], k_rows.offsets.device)
    queries = Ragged.of(overlaps[own], q_rows.offsets.device)
    return queries, keys, slice(start, start + keys.total)


def _overlaps(lengths: list[int], first: int, last: int) -> list[int]:
    """Return how many rows of each segment lie in rows [first, last)."""
    found, start = [], 0
    for length in lengths:
        found.append(max(0, min(start + length, last) - max(start, first)))
        start += length
    return found
