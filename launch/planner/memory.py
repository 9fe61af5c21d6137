"""Memory of a rank by part: training state exactly, activations and buffers in closed form."""

from dataclasses import dataclass

from launch.planner.activations import (
    PackShape,
    block_bytes,
    edge_bytes,
    message_bytes,
    pack_bytes,
    packs_in_flight,
    rotation_bytes,
    working_bytes,
)
from launch.planner.machine import MachineConfig
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig
from trainer.layout.cost import (
    LIVE_PARAMS,
    MASTER_BYTES,
    RankBytes,
    element_bytes,
    gradient_bytes,
    rank_bytes,
    reduce_bucket,
)
from trainer.layout.layout import Coordinates
from trainer.layout.optimizer import OptimizerKind, update_bytes
from trainer.layout.stages import chunks_of, cut_chunks


@dataclass(frozen=True)
class Memory:
    """Bytes on the device of the rank that needs most, by part, and what it has.

    stage: that rank's pipeline stage. optimizer: 0 where it is offloaded, see ``host``.
    activations: kept for the backward pass. working: of one block's backward pass, what is
    computed again included; or of the optimizer's step where that is more. packs: the step's input.
    communication: gathered rows and messages. reserved: for the context and fragmentation.
    host: bytes in host memory of a node: offloaded state, and codec and text encoder while online.
    """

    params: float
    gradients: float
    optimizer: float
    ema: float
    buffers: float
    activations: float
    working: float
    packs: float
    communication: float
    reserved: float
    available: float
    host: float
    stage: int

    @property
    def total(self) -> float:
        """Bytes needed on the device."""
        return float(sum(getattr(self, name) for name in PARTS))

    @property
    def excess(self) -> float:
        """Bytes missing; negative where it fits."""
        return self.total - self.available


PARTS = (
    "params", "gradients", "optimizer", "ema", "buffers", "activations", "working", "packs",
    "communication", "reserved",
)  # fmt: skip


def gathers_rows(machine: MachineConfig, parallel: ParallelConfig) -> bool:
    """Tell whether modulation gathers rows there, see ``models.dit.modulation.Spans``."""
    on_cpu = parallel.device == "cpu" or not machine.accelerator
    return parallel.compile or not on_cpu


def plan_memory(
    model: ModelConfig,
    parallel: ParallelConfig,
    pack: PackShape,
    micros: int,
    machine: MachineConfig,
    online_bytes: float = 0.0,
    optimizer: OptimizerKind = OptimizerKind.adamw,
) -> Memory:
    """Return the memory of the rank that needs most, over all pipeline stages.

    micros: packs of a step on a rank. online_bytes: of networks that encode while training; they
    run on the host, one copy a process.
    """
    found = []
    for stage, blocks in enumerate(stage_blocks(model, parallel)):
        place = Coordinates(pp=stage)
        state = rank_bytes(model, parallel, place, optimizer)
        update = update_bytes(model, parallel, place, optimizer)
        rank = (stage, blocks, state, online_bytes, update)
        found.append(stage_memory(model, parallel, pack, micros, machine, *rank))
    return max(found, key=lambda memory: memory.total)


def stage_memory(
    model: ModelConfig,
    parallel: ParallelConfig,
    pack: PackShape,
    micros: int,
    machine: MachineConfig,
    stage: int,
    blocks: int,
    state: RankBytes,
    online_bytes: float = 0.0,
    update: float = 0.0,
) -> Memory:
    """Return the memory of a rank of one stage with its blocks and its training state given.

    update: bytes that the optimizer's arithmetic takes on the way.
    """
    gathers = gathers_rows(machine, parallel)
    kept = block_bytes(model, parallel, pack, gathers, parallel.recompute) * blocks
    flight = packs_in_flight(parallel, stage, micros)
    edge = edge_bytes(model, parallel, pack, gathers) * (flight if stage == 0 else 1.0)
    optimizer = 0 if parallel.offload else state.optimizer
    host = (state.optimizer if parallel.offload else 0) + online_bytes
    rotations = rotation_bytes(model, parallel, pack) * parallel.interleave
    activations = (kept + rotations) * flight + edge
    working = working_bytes(model, parallel, pack, gathers)
    # ZeRO 1 and 2 copy their partition's gradients to fp32 in the step, when activations are gone.
    step = (state.optimizer / 3 if parallel.zero_stage in (1, 2) else 0) + update
    return Memory(
        params=state.params,
        gradients=state.gradients,
        optimizer=optimizer,
        ema=state.ema,
        buffers=state.buffers,
        activations=activations,
        working=max(working, step - activations),
        packs=pack_bytes(model, parallel, pack, micros),
        communication=message_bytes(model, parallel, pack),
        reserved=machine.reserved_bytes,
        available=machine.memory_bytes,
        host=host * min(machine.devices_per_node, parallel.layout.world),
        stage=stage,
    )


def binary_bytes(value: float) -> str:
    """Return bytes in GiB, MiB, KiB or by themselves, the largest of which there is one."""
    for unit, size in (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if value >= size:
            return f"{value / size:,.2f} {unit}"
    return f"{value:.0f} bytes"


def quick_state(params: int, parallel: ParallelConfig) -> RankBytes:
    """Return the table of ``trainer.layout.cost.rank_bytes`` without its padding and ownership.

    For the search, which looks at thousands of layouts; what it returns is computed exactly.
    """
    e, g, share = element_bytes(parallel), gradient_bytes(parallel), 1 / parallel.layout.replicas
    bucket, stage = reduce_bucket(params, parallel), parallel.zero_stage
    if stage == 0:
        return RankBytes(e * params, e * params, 8 * params, 4 * params, e * bucket)
    owned = round(params * share)
    second = g * bucket if parallel.widens_gradients else e * owned  # of ZeRO 2
    buffers = {
        1: g * bucket,
        2: e * bucket + second,
        3: g * bucket + e * min(params, LIVE_PARAMS),
    }[stage] + (e * bucket if stage == 2 and parallel.overlap_comm else 0)
    return RankBytes(
        params=e * (owned if stage == 3 else params),
        gradients=g * (params if stage == 1 else owned),
        optimizer=3 * MASTER_BYTES * owned,
        ema=MASTER_BYTES * owned,
        buffers=buffers,
    )


def stage_blocks(model: ModelConfig, parallel: ParallelConfig) -> list[int]:
    """Return the blocks of every stage, as ``trainer.layout.stages`` cuts them."""
    chunks = cut_chunks(model, parallel.pp * parallel.interleave)
    stages = (chunks_of(chunks, stage, parallel.pp) for stage in range(parallel.pp))
    return [sum(len(chunk.blocks) for chunk in held) for held in stages]
