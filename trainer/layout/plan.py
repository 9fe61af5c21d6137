"""Which parameter is cut how: the named plan of tensor parallelism, and pieces of parameters.

A plan speaks of names of ``models.dit.model.DiT``; the model knows nothing of it. Planners
import this file, so torch is imported only where tensors are put together.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    """A cut of a parameter over tensor ranks.

    Along ``dim`` lie ``groups`` equal blocks (queries, keys and values, say); each is cut evenly,
    and a rank holds its part of every block.
    """

    dim: int
    groups: int = 1

    def cut(self, full: "Tensor", index: int, count: int) -> "Tensor":
        """Return the part of rank ``index`` of ``count``; a view where ``groups`` is 1."""
        blocks = full.unflatten(self.dim, (self.groups, full.shape[self.dim] // self.groups))
        return blocks.chunk(count, self.dim + 1)[index].flatten(self.dim, self.dim + 1)

    def join(self, parts: "list[Tensor]") -> "Tensor":
        """Put the parts of all ranks together; the inverse of :meth:`cut`."""
        import torch

        blocks = [p.unflatten(self.dim, (self.groups, -1)) for p in parts]
        return torch.cat(blocks, self.dim + 1).flatten(self.dim, self.dim + 1)

    def shape(self, full: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Return the shape of a part of a parameter of shape ``full``."""
        return tuple(n // count if d == self.dim else n for d, n in enumerate(full))


# End of a parameter's name -> cut. What is not named is whole on every tensor rank. Layers whose
# output is cut (dim 0) read all rows; layers whose input is cut (dim 1) sum over tensor ranks. Both
# modulations work on one row a segment; their outputs are put together again.
TENSOR_PLAN = {
    "modulation.weight": Split(0),
    "modulation.bias": Split(0),
    "self_attention.qkv.weight": Split(0, groups=3),
    "self_attention.temperature": Split(0),
    "self_attention.out.weight": Split(1),
    "cross_attention.q.weight": Split(0),
    "cross_attention.kv.weight": Split(0, groups=2),
    "cross_attention.temperature": Split(0),
    "cross_attention.out.weight": Split(1),
    "mlp.0.weight": Split(0),
    "mlp.0.bias": Split(0),
    "mlp.2.weight": Split(1),
}


def split_of(name: str) -> Split | None:
    """Return how a parameter of the DiT is cut; None where it is whole everywhere."""
    return next((split for end, split in TENSOR_PLAN.items() if name.endswith(end)), None)


@dataclass(frozen=True)
class Fragment:
    """A flat piece of one parameter that this rank owns; the tensors are views, write in place.

    name: of the parameter; part, parts: which tensor part of it, of how many (0 of 1: all of it).
    start: first element in the flattened part.
    tensors: ``param`` (fp32 master), ``exp_avg`` and ``exp_avg_sq``, all of one length.
    """

    name: str
    start: int
    tensors: "dict[str, Tensor]"
    part: int = 0
    parts: int = 1
