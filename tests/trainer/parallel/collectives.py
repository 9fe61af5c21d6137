"""A recorder of every collective that a process calls: how often, with how many bytes."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import _functional_collectives as _functional  # noqa: F401  (registers ops)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operator -> (kind, its argument that holds what this rank hands in, group argument).
_SENT = {
    "_c10d_functional.all_gather_into_tensor": ("gather", 0, 2),
    "_c10d_functional.reduce_scatter_tensor": ("reduce_scatter", 0, 3),
    "_c10d_functional.all_to_all_single": ("all_to_all", 0, 3),
    "_c10d_functional.all_reduce": ("all_reduce", 0, 2),
    "c10d.allreduce_": ("all_reduce", 0, 1),
    "c10d._allgather_base_": ("gather", 1, 2),
    "c10d.allgather_": ("gather", 1, 2),
    "c10d.allgather_into_tensor_coalesced_": ("gather", 1, 2),
    "c10d._reduce_scatter_base_": ("reduce_scatter", 1, 2),
    "c10d.reduce_scatter_": ("reduce_scatter", 1, 2),
    "c10d.reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1, 2),
    "c10d.alltoall_base_": ("all_to_all", 1, 2),
    "c10d.broadcast_": ("broadcast", 0, 1),
    "c10d.reduce_": ("reduce", 0, 1),
    "c10d.send": ("send", 0, 1),
    "c10d.recv_": ("receive", 0, 1),
}


@dataclass
class Count:
    """Calls of one kind on one group, and the bytes that this rank handed in."""

    calls: int = 0
    bytes: int = 0


class Recorder(TorchDispatchMode):
    """Count collectives by kind and group, given the names of the groups that matter.

    zero: fill what a fake process group leaves undefined with zeros, so that no garbage computes.
    """

    def __init__(self, groups: dict[str, str], zero: bool = False) -> None:
        super().__init__()
        self._groups, self._zero = groups, zero
        self.counts: dict[tuple[str, str], Count] = defaultdict(Count)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and note it if it is a collective."""
        out = func(*args, **(kwargs or {}))
        name = str(func).rpartition(".")[0]
        if name in _SENT:
            kind, where, group = _SENT[name]
            tensors = [t for t in tree_leaves(args[where]) if isinstance(t, Tensor)]
            count = self.counts[kind, self._group(args[group])]
            count.calls += 1
            count.bytes += sum(t.numel() * t.element_size() for t in tensors)
            if self._zero:
                self._clear(name, args, out)
        elif name.startswith(("c10d.", "_c10d_functional.")) and "wait" not in name:
            self.counts[name, "?"].calls += 1
        return out

    def bytes(self, kind: str, group: str) -> int:
        """Return the bytes handed to collectives of a kind on a group."""
        return self.counts[kind, group].bytes if (kind, group) in self.counts else 0

    def _group(self, group: Any) -> str:
        name = group
        if not isinstance(group, str):
            import torch.distributed as dist

            name = dist.ProcessGroup.unbox(group).group_name
        return self._groups.get(name, name)

    def _clear(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        with torch.no_grad():
            if name.startswith("_c10d_functional."):
                if "all_reduce" not in name:
                    out.zero_()
            elif name in ("c10d.recv_", "c10d._allgather_base_", "c10d._reduce_scatter_base_"):
                for tensor in tree_leaves(args[0]):
                    tensor.zero_()


def group_names(groups: dict[str, Any]) -> dict[str, str]:
    """Return the process groups' own names -> the names of a mesh."""
    return {group.group_name: name for name, group in groups.items()}
