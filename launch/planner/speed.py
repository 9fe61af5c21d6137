"""Time of an optimizer step by cause, for our DiT and for published transformers.

Seconds of a rank for one micro-batch of its stage, with L' blocks, peak P and shares s of it:

    matmul     = (3 + r) L' F_linear / (tp cp s_matmul P D / (D + h))    r = 1 if blocks run again
    attention  = (3 + r) L' F_attention / (tp cp s_attention P)
    elementwise = (3 + r') L' traffic D tokens e / (tp cp s_memory B)   r' = 1, selective too
    tensor, context, pipeline = bytes sent / (s_link bandwidth) + calls latency

A step is ``micros`` of them, and (pp - 1) / (interleave micros) of that as the bubble (Narayanan et
al. 2021, section 2.2), the gradients' and parameters' way over data-parallel ranks, and the
optimizer, which is bound by memory. What a ring over n ranks sends: trainer/layout/traffic.py.
"""

from dataclasses import dataclass, field
from math import ceil

from launch.planner.machine import MachineConfig
from launch.planner.network import Network
from models.config import AttentionKernel, ModelConfig
from trainer.layout.config import ParallelConfig, Recompute
from trainer.layout.cost import LIVE_PARAMS, element_bytes, gradient_bytes
from trainer.layout.optimizer import OptimizerKind, UpdateWork, update_works


@dataclass(frozen=True)
class Batch:
    """What a replica works on in one step.

    tokens: rows of a micro-batch. segment: tokens that a token sees, the sum of squared lengths
    over the sum of lengths. segments: of a micro-batch. caption: tokens of one caption. micros:
    packs. spans: of a segment, each with a time of its own.
    """

    tokens: float
    segment: float
    segments: float = 1.0
    caption: float = 32.0
    micros: int = 1
    spans: float = 1.0


@dataclass(frozen=True)
class Execution:
    """How a network is carried out.

    again: share of blocks whose forward pass runs again; elementwise_again: whose elementwise
    kernels do. tuned: as the fastest public stacks do it: gradients are reduce-scattered, and
    traffic of data ranks and a context *ring* hides behind compute. key_ranks: context ranks that
    gather each other's keys, see ``ParallelConfig.context_split``. Ours all-reduces, exchanges and
    waits (trainer/parallel/engine.py, context.py). fused: attention by a vendor's kernels
    (Transformer Engine, cuDNN); ours are PyTorch's. scatters, overlaps: parallel.reduce_scatter and
    overlap_comm. update: what Muon does beside AdamW.
    """

    tp: int = 1
    cp: int = 1
    key_ranks: int = 1
    pp: int = 1
    dp: int = 1
    interleave: int = 1
    zero_stage: int = 1
    again: float = 0.0
    elementwise_again: float = 0.0
    offload: bool = False
    element_bytes: int = 2
    gradient_bytes: int = 2
    precision: str = "bf16"
    tuned: bool = False
    fused: bool = False
    scatters: bool = False
    overlaps: bool = False
    update: UpdateWork = field(default_factory=UpdateWork)

    @classmethod
    def of(
        cls,
        parallel: ParallelConfig,
        model: ModelConfig,
        optimizer: OptimizerKind = OptimizerKind.adamw,
    ) -> "Execution":
        """Return how this stack carries out a layout of a model, on its busiest rank."""
        e = element_bytes(parallel)
        return cls(
            tp=parallel.tp,
            cp=parallel.cp,
            key_ranks=parallel.context_split(model.num_heads)[1],
            pp=parallel.pp,
            dp=parallel.layout.dp,
            interleave=parallel.interleave,
            zero_stage=parallel.zero_stage,
            again=1.0 if parallel.recompute is Recompute.full else 0.0,
            elementwise_again=0.0 if parallel.recompute is Recompute.none else 1.0,
            offload=parallel.offload,
            element_bytes=e,
            gradient_bytes=gradient_bytes(parallel),
            precision=parallel.precision.value,
            fused=parallel.attention is AttentionKernel.te,
            scatters=parallel.reduce_scatter,
            overlaps=parallel.overlap_comm,
            update=_most_work(model, parallel, optimizer),
        )

    @property
    def devices(self) -> int:
        """Ranks of all axes."""
        return self.tp * self.cp * self.pp * self.dp


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step that pass with each cause, on the slowest stage; they add up."""

    matmul: float
    attention: float
    elementwise: float
    kernels: float
    tensor: float
    context: float
    pipeline: float
    data: float
    bubble: float
    optimizer: float

    @property
    def compute(self) -> float:
        """Seconds in which the device works for the result."""
        return self.matmul + self.attention + self.elementwise + self.kernels + self.optimizer

    @property
    def communication(self) -> float:
        """Seconds in which it waits for other ranks' bytes."""
        return self.tensor + self.context + self.pipeline + self.data

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return float(sum(vars(self).values()))


def step_time(network: Network, machine: MachineConfig, how: Execution, batch: Batch) -> StepTime:
    """Return the time of an optimizer step."""
    blocks = ceil(network.layers / (how.pp * how.interleave)) * how.interleave
    matmul, attention, elementwise, kernels = _compute(network, machine, how, batch, blocks)
    tensor = _tensor(network, machine, how, batch, blocks)
    context = _context(network, machine, how, batch, blocks, attention)
    pipeline = _pipeline(network, machine, how, batch)
    params = network.params / (how.tp * how.pp)
    micro = matmul + attention + elementwise + kernels + tensor + context
    m = batch.micros
    return StepTime(
        matmul=m * matmul,
        attention=m * attention,
        elementwise=m * elementwise,
        kernels=m * kernels,
        tensor=m * tensor,
        context=m * context,
        pipeline=m * pipeline,
        data=_data(machine, how, m, params, micro, network.layers),
        bubble=(how.pp - 1) / how.interleave * (micro + pipeline),
        optimizer=_optimizer(machine, how, params) + _orthogonal(network, machine, how),
    )


def training_flops(network: Network, tokens: float, segment: float, caption: float) -> float:
    """Return model FLOPs of forward and backward over tokens, what is computed again left out."""
    captions = tokens / segment * caption
    block = network.linear_flops(tokens, captions)
    block += network.attention_flops(tokens, segment, caption)
    return 3 * (network.layers * block + 2 * tokens * network.outside)


def _compute(
    network: Network, machine: MachineConfig, how: Execution, batch: Batch, blocks: int
) -> tuple[float, float, float, float]:
    """Return seconds of matrix products, attention, elementwise kernels and starting kernels."""
    share, peak = machine.efficiency, machine.peak(how.precision)
    attends = machine.attention_share(how.fused, network.causal)
    own = batch.tokens / (how.tp * how.cp)
    captions = batch.segments * batch.caption / how.tp  # context ranks project captions each
    linear = network.linear_flops(own, captions)
    seen = network.attention_flops(own, batch.segment, batch.caption)
    outside = 3 * 2 * own * network.outside
    matmul = ((3 + how.again) * blocks * linear + outside) / (
        machine.matmul_share(network.width) * peak
    )
    attention = (3 + how.again) * blocks * seen / (attends * peak)
    moved = network.traffic * own * how.element_bytes
    moved *= (3 + how.elementwise_again) * blocks
    elementwise = moved / (share.memory * machine.memory_bytes_per_second)
    kernels = machine.start_seconds(blocks, matmul + attention + elementwise)
    return matmul, attention, elementwise, kernels


def bandwidth(machine: MachineConfig, ranks: int, stride: int) -> float:
    """Return the bytes per second a rank sends in rings over a group.

    stride: distance of neighbours in the order of ranks. With g members a node, g rings leave it by
    as many adapters.
    """
    local = max(1, min(ranks, machine.devices_per_node // stride))
    link = machine.node_link.bytes_per_second
    if local < ranks:
        link = min(link, local * machine.network.bytes_per_second)
    return machine.efficiency.link * link


def exchange_seconds(machine: MachineConfig, ranks: int, stride: int, size: float) -> float:
    """Return the seconds in which each rank hands every rank its part of ``size`` bytes.

    What leaves a node goes by the rank's own adapter: unlike a ring, whose neighbours in a node
    share one crossing, each member sends to every rank of the other nodes itself. What stays goes
    by the node's link meanwhile.
    """
    local = max(1, min(ranks, machine.devices_per_node // stride))
    part, share = size / ranks, machine.efficiency.link
    stays = (local - 1) * part / (share * machine.node_link.bytes_per_second)
    leaves = (ranks - local) * part / (share * machine.network.bytes_per_second)
    return max(stays, leaves)


def latency(machine: MachineConfig, ranks: int, stride: int) -> float:
    """Return the seconds of an empty collective: a tree over nodes, and within one."""
    local = max(1, min(ranks, machine.devices_per_node // stride))
    nodes = ceil(ranks / local)
    steps = (local - 1).bit_length() * machine.node_link.latency_seconds
    return steps + (nodes - 1).bit_length() * machine.network.latency_seconds


def _tensor(
    network: Network, machine: MachineConfig, how: Execution, batch: Batch, blocks: int
) -> float:
    """Gathers and reduce-scatters of own rows around each layer (Korthikanti et al. 2022)."""
    if how.tp == 1:
        return 0.0
    gathered_again = 1 if how.tuned or how.elementwise_again else 0
    calls = network.gathers * blocks * (4 + gathered_again + how.again)
    own = batch.tokens / (how.tp * how.cp) * network.width * how.element_bytes
    wire = calls * (how.tp - 1) * own
    return wire / bandwidth(machine, how.tp, 1) + calls * latency(machine, how.tp, 1)


def _context(
    network: Network,
    machine: MachineConfig,
    how: Execution,
    batch: Batch,
    blocks: int,
    attention: float,
) -> float:
    """Exchanges of rows for heads (Jacobs et al. 2023), or a ring of keys and values (tuned).

    Where heads do not suffice, keys and values are gathered and their gradients summed besides.
    """
    if how.cp == 1:
        return 0.0
    share = batch.tokens / how.cp / how.tp * how.element_bytes
    if how.tuned:
        speed = bandwidth(machine, how.cp, how.tp)
        wire = blocks * (3 + how.again) * (how.cp - 1) * share * 2 * network.kv_width
        return max(0.0, wire / speed - machine.efficiency.hidden * attention)
    passes = blocks * (2 + how.again)
    heads, stride = how.cp // how.key_ranks, how.tp * how.cp // how.key_ranks
    sent = exchange_seconds(machine, heads, how.tp, passes * 4 * share * network.width)
    sent += 2 * passes * latency(machine, heads, how.tp) if heads > 1 else 0.0
    if how.key_ranks > 1:
        calls = blocks * (2 + max(how.again, how.elementwise_again))
        wire = calls * (how.key_ranks - 1) * 2 * share * network.kv_width
        sent += wire / bandwidth(machine, how.key_ranks, stride)
        sent += calls * latency(machine, how.key_ranks, stride)
    return sent


def _pipeline(network: Network, machine: MachineConfig, how: Execution, batch: Batch) -> float:
    """Wait for one message forward and one backward of every chunk."""
    if how.pp == 1:
        return 0.0
    stride = how.tp * how.cp * how.dp
    local = stride * how.pp <= machine.devices_per_node
    link = machine.node_link if local else machine.network
    size = batch.tokens / (how.tp * how.cp)
    size += batch.segments * (7 * batch.spans + batch.caption)
    seconds = size * network.width * how.element_bytes
    seconds /= machine.efficiency.link * link.bytes_per_second
    return 2 * how.interleave * (seconds + link.latency_seconds)


def _data(
    machine: MachineConfig, how: Execution, micros: int, params: float, micro: float, layers: int
) -> float:
    """Gradients and parameters on their way over the ranks that share a replica's state.

    In units of the parameters of a rank: ZeRO 0 an all-reduce (2); 1 that and a gather; 2 the
    same with an all-reduce every micro-batch; 3 every micro-batch a reduce-scatter and two gathers,
    less what is still there. Where gradients are scattered, each goes once. Tuned: scattered, and
    all behind the backward pass; where ours overlaps, gradients alone. Of the traffic of ZeRO 3 a
    share stays, since its kernels take part of the device while they hide.
    """
    ranks, hides = how.dp * how.cp, machine.efficiency.hidden
    if ranks == 1:
        return 0.0
    speed = bandwidth(machine, ranks, how.tp) / ((ranks - 1) / ranks)
    gradients, weights = how.gradient_bytes * params, how.element_bytes * params
    if how.zero_stage == 3:
        again = 1 - min(params, LIVE_PARAMS) / params
        wire = micros * (gradients + weights * (1 + again))
        seconds = wire / speed + 3 * micros * layers * latency(machine, ranks, how.tp)
        stays = machine.efficiency.exposed * seconds
        hidden = how.tuned or how.overlaps
        return max(stays, seconds - hides * micros * micro) if hidden else seconds
    times = micros if how.zero_stage == 2 and not how.tuned else 1
    seconds = times * gradients * (1 if how.tuned or how.scatters else 2) / speed
    published = weights / speed if how.zero_stage else 0.0
    backward = 2 / 3 * micro * times
    if how.tuned:
        return max(0.0, seconds + published - hides * backward)
    return (max(0.0, seconds - hides * backward) if how.overlaps else seconds) + published


# Bytes that AdamW and the average move for an element: gradient, master, two moments and average
# are read, four of them written, the fp32 gradient made first (trainer/parallel/engine.py, ema.py).
OPTIMIZER_BYTES = 4 * (5 + 4 + 2)


def _optimizer(machine: MachineConfig, how: Execution, params: float) -> float:
    """Return seconds of the update, which nothing but memory bounds."""
    owned = params / (how.dp * how.cp if how.zero_stage else 1)
    moved = owned * (OPTIMIZER_BYTES + how.element_bytes + how.gradient_bytes)
    if how.offload:
        return moved / machine.host_bytes_per_second
    return moved / (machine.efficiency.memory * machine.memory_bytes_per_second)


def _most_work(model: ModelConfig, parallel: ParallelConfig, kind: OptimizerKind) -> UpdateWork:
    """Return the work of orthogonal updates on the rank that has most: all wait for it."""
    if kind is OptimizerKind.adamw:
        return UpdateWork()
    stages = range(parallel.pp)
    works = [work for stage in stages for work in update_works(model, parallel, stage, kind)]
    return max(works, key=lambda work: work.flops)


def _orthogonal(network: Network, machine: MachineConfig, how: Execution) -> float:
    """Return seconds of orthogonal updates: products, and momenta gathered for them, which wait."""
    work, replicas = how.update, how.dp * how.cp
    products = machine.matmul_share(network.width) * machine.peak(how.precision)
    seconds = work.flops / products
    if work.gathered:
        seconds += (replicas - 1) * work.gathered / bandwidth(machine, replicas, how.tp)
    if work.joined:
        seconds += (how.tp - 1) * work.joined / bandwidth(machine, how.tp, 1)
    return seconds
