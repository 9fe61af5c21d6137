"""Muon for the matrices of blocks, AdamW for the rest, behind the gate of :class:`HeldAdamW`.

Muon (Jordan et al. 2024) replaces the mean gradient by the nearest matrix of equal singular values.
torch 2.13 has one; it rounds to bf16 whatever it is given (1.5 % of an update, docs/log.md), where
a last bit of a sum of gradients may tip a rounding, so that a layout would show; and it takes whole
matrices one by one, where ZeRO has flat partitions. Polynomial and coefficients are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod, sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from models.architecture import Shape, Split
from trainer.layout.optimizer import NEWTON_SCHULZ_STEPS
from trainer.parallel.mesh import Mesh
from trainer.parallel.optimizer import HeldAdamW

QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at zero: Jordan et al. 2024
ADAMW_RMS = 0.2  # of an element's update under AdamW at rate 1 (Liu et al. 2025, section 2.2)


@dataclass(frozen=True)
class Matrix:
    """One parameter. part: its shape on this rank; cut: how tensor ranks share it, and how it falls
    into matrices that are one apart from the other, such as queries, keys and values."""

    part: Shape
    cut: Split | None


class HeldMuon(HeldAdamW):
    """Muon for groups marked ``orthogonal``, AdamW for the others.

    direct: what turns this rank's share of momenta into its share of orthogonal updates; given
    after DeepSpeed has laid them out.
    """

    direct: Callable[[Sequence[Tensor]], list[Tensor]]

    def __init__(self, groups: list[dict[str, Any]], momentum: float, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update if allowed."""
        if self.allow is not None and not self.allow():
            return
        every = self.param_groups
        self.param_groups = [group for group in every if not group["orthogonal"]]
        try:
            if self.param_groups:
                super().step(closure)
        finally:
            self.param_groups = every
        for group in every:
            if group["orthogonal"]:
                self._move(group)

    def _move(self, group: dict[str, Any]) -> None:
        held: list[Tensor] = group["params"]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        momenta = [self.state[p]["exp_avg"] for p in held]
        torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
        ahead = torch._foreach_lerp(gradients, momenta, self._momentum)  # Nesterov's
        updates = self.direct(ahead)
        torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(held, updates, alpha=-group["lr"])


class Whole:
    """Directions of matrices that lie whole on each data-parallel rank (ZeRO 0)."""

    def __init__(self, matrices: Sequence[Matrix], mesh: Mesh, dtype: torch.dtype) -> None:
        self._matrices, self._mesh, self._dtype = matrices, mesh, dtype

    def __call__(self, ahead: Sequence[Tensor]) -> list[Tensor]:
        """Return this rank's parts of the directions of its parts of the momenta."""
        cuts = [matrix.cut for matrix in self._matrices]
        whole = _joined(ahead, cuts, self._mesh)
        found = orthogonal(whole, [cut.groups if cut else 1 for cut in cuts], self._dtype)
        tp = self._mesh.layout.tp
        if tp == 1:
            return found
        index = self._mesh.place.tp
        pairs = zip(found, cuts, strict=True)
        return [cut.cut(full, index, tp) if cut else full for full, cut in pairs]


class Partitioned:
    """Directions of a flat partition (ZeRO 1 and 2): momenta are gathered, own ones are made."""

    def __init__(self, matrices: Sequence[Matrix], mesh: Mesh, dtype: torch.dtype) -> None:
        self._matrices, self._mesh, self._dtype = matrices, mesh, dtype
        sizes = [prod(matrix.part) for matrix in matrices]
        self._starts = [0, *accumulate(sizes)]

    def __call__(self, ahead: Sequence[Tensor]) -> list[Tensor]:
        """Return the directions of the one flat partition of momenta."""
        (own,) = ahead
        flat, low = own, 0
        if (replicas := self._mesh.layout.replicas) > 1:
            group = self._mesh.groups.get("replicas", dist.group.WORLD)
            flat = own.new_empty(replicas * len(own))
            dist.all_gather_into_tensor(flat, own.contiguous(), group=group)
            low = dist.get_rank(group) * len(own)
        high, starts = low + len(own), self._starts
        mine = [i for i in range(len(self._matrices)) if starts[i] < high and starts[i + 1] > low]
        matrices = [self._matrices[i] for i in mine]
        parts = [
            flat[starts[i] : starts[i + 1]].view(matrix.part)
            for i, matrix in zip(mine, matrices, strict=True)
        ]
        found = torch.zeros_like(own)  # what no matrix reaches is padding
        directions = Whole(matrices, self._mesh, self._dtype)(parts) if mine else []
        for i, direction in zip(mine, directions, strict=True):
            first, last = max(low, starts[i]), min(high, starts[i + 1])
            piece = direction.reshape(-1)[first - starts[i] : last - starts[i]]
            found[first - low : last - low] = piece
        return [found]


def _joined(parts: Sequence[Tensor], cuts: Sequence[Split | None], mesh: Mesh) -> list[Tensor]:
    """Put the parts of all tensor ranks together, by one collective."""
    tp = mesh.layout.tp
    cut = [part.reshape(-1) for part, how in zip(parts, cuts, strict=True) if how is not None]
    if tp == 1 or not cut:
        return list(parts)
    own = torch.cat(cut)
    flat = own.new_empty(tp * len(own))
    dist.all_gather_into_tensor(flat, own, group=mesh.groups["tp"])
    pieces = zip(
        *(row.split([len(part) for part in cut]) for row in flat.view(tp, -1)), strict=True
    )
    return [
        part if how is None else how.join([piece.view(part.shape) for piece in next(pieces)])
        for part, how in zip(parts, cuts, strict=True)
    ]


def orthogonal(
    matrices: Sequence[Tensor], groups: Sequence[int], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Return what an update at rate 1 is: orthogonal, and as large an element as AdamW's.

    matrices: (rows, columns) each, of ``groups`` equal blocks of rows that are matrices of their
    own. A block (R, C) becomes 0.2 sqrt(max(R, C)) U V^T (Liu et al. 2025, equation 4), to within
    the polynomial's 30 % of each singular value. All blocks of a shape are one product of many.
    """
    blocks = [
        block
        for matrix, count in zip(matrices, groups, strict=True)
        for block in matrix.chunk(count)
    ]
    alike: dict[tuple[int, int], list[int]] = {}
    for number, block in enumerate(blocks):
        alike.setdefault((min(block.shape), max(block.shape)), []).append(number)
    for (rows, columns), numbers in alike.items():
        flat = torch.stack(
            [b if b.shape[0] == rows else b.mT for b in (blocks[n] for n in numbers)]
        )
        made = newton_schulz(flat.to(dtype)).to(flat.dtype) * (ADAMW_RMS * sqrt(columns))
        for number, one in zip(numbers, made, strict=True):
            blocks[number] = one if blocks[number].shape[0] == rows else one.mT
    found, rest = [], iter(blocks)
    for count in groups:
        taken = [next(rest) for _ in range(count)]
        found.append(taken[0] if count == 1 else torch.cat(taken))
    return found


def newton_schulz(matrices: Tensor) -> Tensor:
    """Take the singular values of matrices (B, R, C), R <= C, near to one: odd quintic steps.

    Zero stays zero; singular values below 1e-3 of the norm stay below one.
    """
    a, b, c = QUINTIC
    norm = matrices.flatten(1).norm(dim=1).view(-1, 1, 1)
    x = matrices / norm.clamp(min=torch.finfo(matrices.dtype).tiny)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
