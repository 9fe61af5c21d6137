"""One process's place in the layout, with its process groups and the few collectives others use."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _set_pg_timeout

from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Coordinates, Layout

Group = dist.ProcessGroup
_RECORDED = 500  # collectives of a rank that the flight recorder keeps, for the report of a stall


@dataclass(frozen=True)
class Mesh:
    """Where this process stands and whom it talks to.

    layout, rank, place: all axes, this rank, and its place on them. device: where it computes.
    groups: process groups by name, see ``_GROUPS``; an axis of one rank has none.
    owns_world: whether this mesh started the process group, and so ends it.
    """

    layout: Layout
    rank: int
    device: torch.device
    groups: dict[str, Group] = field(default_factory=dict)
    owns_world: bool = False

    @property
    def world(self) -> int:
        """Number of ranks of all axes."""
        return self.layout.world

    @property
    def place(self) -> Coordinates:
        """This rank's place."""
        return self.layout.coordinates(self.rank)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    @property
    def leads_replica(self) -> bool:
        """Whether this rank speaks for its copy of the model, the one of its tp, cp, pp peers."""
        place = self.place
        return place.tp == place.cp == place.pp == 0

    @property
    def peers(self) -> "ReplicaPeers | None":
        """This rank's tp, cp and pp peers, who train on the same packs; None where it is alone."""
        group = self.groups.get("peers")
        return None if group is None else ReplicaPeers(self.leads_replica, self.device, group)

    @property
    def is_first_stage(self) -> bool:
        """Whether this rank holds the embeddings."""
        return self.place.pp == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank holds the head and sees the loss."""
        return self.place.pp == self.layout.pp - 1

    def sum(self, *values: float) -> list[float]:
        """Sum fp64 values over all ranks."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Tell whether any rank raises the flag."""
        return self.sum(float(flag))[0] > 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


# Group name -> axes. ``replicas`` is DeepSpeed's data-parallel group, ``model`` its model-parallel
# group; it needs both even where they hold one rank. ``peers`` share packs: a group of its own even
# where another has the same ranks, so that packs may travel beside the collectives of a step.
_GROUPS = {
    "replicas": ("cp", "dp"),
    "model": ("tp", "pp"),
    "tp": ("tp",),
    "cp": ("cp",),
    "pp": ("pp",),
    "peers": ("tp", "cp", "pp"),
}


@dataclass(frozen=True)
class ReplicaPeers:
    """The ranks that hold one copy of the model together, of which the first reads for all.

    See ``data.loading.peers``.
    """

    reads: bool
    device: torch.device
    group: Group

    def spread(self, buffer: Tensor) -> None:
        """Overwrite a buffer on the host with that of the rank that reads. Collective."""
        sent = buffer.to(self.device)
        dist.broadcast(sent, group=self.group, group_src=0)
        if not self.reads:
            buffer.copy_(sent)


def alone(device: str = "cpu") -> Mesh:
    """Return the mesh of one process that talks to nobody."""
    return Mesh(Layout(), 0, torch.device(device))


def device_of(name: str) -> torch.device:
    """Return the device that ``parallel.device`` means to this process of its node."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start_mesh(config: ParallelConfig) -> Mesh:
    """Join the process group that the environment describes (torchrun's, or one process alone).

    A group that this process has joined already is used and left open. Collective.
    """
    layout = config.layout
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != config.processes:
        raise ValueError(
            f"parallel.processes={config.processes}: must equal the started processes={world}. "
            "Start the run with kinescale train, which starts the right number."
        )
    for key, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(key, value)
    device = device_of(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(_RECORDED))
    owns = not dist.is_initialized()
    timeout = timedelta(seconds=max(config.timeout_seconds, config.start_timeout_seconds))
    if owns:
        backend = "nccl" if device.type == "cuda" else "gloo"
        if world == 1:  # it meets nobody, so it needs no port, which another run could take first
            store = dist.HashStore()
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        else:
            dist.init_process_group(backend, timeout=timeout)
    return join_mesh(layout, device, owns, timeout)


def join_mesh(
    layout: Layout,
    device: torch.device,
    owns_world: bool = False,
    timeout: timedelta | None = None,
) -> Mesh:
    """Make the groups of a layout over the process group that is there. Collective.

    timeout: of their collectives, by default the backend's.
    """
    rank = dist.get_rank()
    groups = {}
    for name, axes in _GROUPS.items():
        least = 1 if name in ("replicas", "model") else 2
        group = _make_group(layout.groups(*axes), rank, owns_world, timeout, least)
        if group is not None:
            groups[name] = group
    return Mesh(layout, rank, device, groups, owns_world)


def _make_group(
    groups: Iterable[list[int]],
    rank: int,
    owns_world: bool,
    timeout: timedelta | None,
    least: int = 2,
) -> Group | None:
    """Make the one of these groups that a rank is in; None where it has fewer than ``least``.

    A mesh that owns its world makes its own alone, whose members meet. torch names such a group by
    its members, and a world that outlives the mesh would meet at what an earlier group of that name
    left: there every rank makes every group, in the same order.
    """
    mine = None
    for members in groups:
        if len(members) < least or (owns_world and rank not in members):
            continue
        made = dist.new_group(members, timeout=timeout, use_local_synchronization=owns_world)
        mine = made if rank in members else mine
    return mine


def split_context(mesh: Mesh, head_ranks: int) -> tuple[Group | None, Group | None]:
    """Return this rank's group of context ranks that trade heads, and of those that gather keys.

    head_ranks: see ``ParallelConfig.context_split``. None stands for a group of one. Collective.
    """
    if head_ranks == mesh.layout.cp:
        return mesh.groups.get("cp"), None
    for name, groups in mesh.layout.context_groups(head_ranks).items():
        group = _make_group(groups, mesh.rank, mesh.owns_world, None)
        if group is not None:
            mesh.groups[name] = group
    return mesh.groups.get("cp_heads"), mesh.groups.get("cp_keys")


def end_start(mesh: Mesh, timeout_seconds: float) -> None:
    """Let no collective from now on wait longer than so; those of the start could."""
    if mesh.world > 1:
        for group in [None, *mesh.groups.values()]:
            # torch's only way to change it, which its documentation names
            _set_pg_timeout(timedelta(seconds=timeout_seconds), group)


def flight_record() -> str:
    """Return what the collectives of this process did last, as torch's flight recorder has it."""
    c10d: Any = torch._C._distributed_c10d
    dump = getattr(c10d, "_dump_nccl_trace_json", None) or c10d._dump_fr_trace_json
    text = dump(includeCollectives=True, onlyActive=False)
    return text.decode() if isinstance(text, bytes) else str(text)


def stop_mesh(mesh: Mesh) -> None:
    """Leave the process group if this mesh started it, else end the groups it made."""
    if mesh.owns_world:
        dist.destroy_process_group()
        return
    for group in mesh.groups.values():
        dist.destroy_process_group(group)
