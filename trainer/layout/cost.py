"""What one rank of a layout holds, in closed form; torch-free. What it sends: ``traffic.py``."""

from dataclasses import dataclass
from math import ceil, prod

from models.architecture import specification_of
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig, Precision
from trainer.layout.layout import Coordinates
from trainer.layout.optimizer import OptimizerKind, moments_of, orthogonal_names, update_groups
from trainer.layout.shapes import part_shape, rank_chunks, rank_weights

COMPLEX_BYTES = 8
MASTER_BYTES = 4  # master weights, moments and averages are fp32 always
# In elements: the largest bucket of gradients on their way (the engine takes a smaller one for a
# smaller model), and DeepSpeed 0.19's default of what ZeRO 3 keeps gathered.
REDUCE_BUCKET, LIVE_PARAMS = 500_000_000, 1_000_000_000
# Where gradients are reduced meanwhile: of the order of Megatron-LM's buckets (40 million), since
# a bucket leaves when it is full and the last one is waited for.
OVERLAP_BUCKET = 50_000_000
PARTITION_ALIGNMENT = 2  # ZeRO 1 and 2 pad a flat group to a multiple of this times its ranks


# --- memory ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankBytes:
    """Bytes of a rank's training state at the end of a step's last backward pass.

    params: what the network computes with. gradients: what is kept of them until the step.
    optimizer: fp32 masters where they are a copy, and the moments (AdamW two, Muon one); with
    offloading they lie in host memory. ema: the averaged weights.
    buffers: at most; DeepSpeed's bucket of gradients on their way, and parameters that ZeRO 3 has
    gathered. Activations are not in here, nor is the fp32 copy of a partition's gradients that
    ZeRO 1 and 2 make during the step.

    With ZeRO 2 the buffers hold a second set of gradients: a further micro-batch, or the next of
    several chunks, is reduced into it; and a second bucket, which fills while the first is on its
    way (parallel.overlap_comm).
    """

    params: int
    gradients: int
    optimizer: int
    ema: int
    buffers: int

    @property
    def state(self) -> int:
        """Everything but the buffers."""
        return self.params + self.gradients + self.optimizer + self.ema

    @property
    def total(self) -> int:
        """Everything."""
        return self.state + self.buffers


@dataclass(frozen=True)
class ZeroGroup:
    """Parameters that the optimizer updates alike, in its order, and ZeRO's share of them."""

    sizes: list[int]
    ranks: int
    index: int
    moments: int = 2

    @property
    def partition(self) -> int:
        """Elements of each rank's partition of the flat group, padding included (ZeRO 1, 2)."""
        unit = PARTITION_ALIGNMENT * self.ranks
        return ceil(sum(self.sizes) / unit) * PARTITION_ALIGNMENT

    @property
    def owned(self) -> int:
        """Elements of this rank's partition that are no padding."""
        return _clamp(sum(self.sizes) - self.index * self.partition, self.partition)

    @property
    def touched(self) -> int:
        """Elements of the parameters that reach into this rank's partition, counted whole."""
        low, high = self.index * self.partition, (self.index + 1) * self.partition
        total = start = 0
        for size in self.sizes:
            total += size if start < high and start + size > low else 0
            start += size
        return total

    @property
    def shards(self) -> int:
        """Elements of this rank's shards of each parameter, padding included (ZeRO 3)."""
        return sum(ceil(size / self.ranks) for size in self.sizes)

    @property
    def owned_shards(self) -> int:
        """Elements of its shards that are no padding."""
        shares = ((size, ceil(size / self.ranks)) for size in self.sizes)
        return sum(_clamp(size - self.index * share, share) for size, share in shares)


def rank_bytes(
    model: ModelConfig,
    parallel: ParallelConfig,
    place: Coordinates,
    kind: OptimizerKind = OptimizerKind.adamw,
) -> RankBytes:
    """Return what a rank holds, from P parameters a rank and R ranks that share a replica's state.

    With e bytes an element (4, or 2 in bf16), g of a gradient (4 with parallel.gradients=fp32,
    else e), padding left out and AdamW, of whose two moments Muon keeps one:

        ZeRO   params   gradients   optimizer   ema
        0      4 P      4 P         8 P         4 P
        1      e P      g P         12 P / R    4 P / R
        2      e P      g P / R     12 P / R    4 P / R
        3      e P / R  g P / R     12 P / R    4 P / R

    After Rajbhandari et al. 2020, section 3, with what differs in DeepSpeed 0.19 as it is driven
    here: masters are a copy in fp32 too; gradients stay in the network's precision unless asked
    for in fp32; and ZeRO 2 keeps the gradient of a parameter whole that reaches into two
    partitions, or in fp32 the partition alone and a copy of a bucket on its way.
    """
    e, groups = element_bytes(parallel), zero_groups(model, parallel, place, kind)
    g, wide = gradient_bytes(parallel), parallel.widens_gradients
    params = sum(sum(group.sizes) for group in groups)
    if parallel.zero_stage == 0:
        bucket = reduce_bucket(params, parallel)
        moments = sum(group.moments * sum(group.sizes) for group in groups)
        return RankBytes(e * params, e * params, 4 * moments, 4 * params, e * bucket)
    if parallel.zero_stage == 3:
        shards = sum(group.shards for group in groups)
        owned = sum(group.owned_shards for group in groups)
        live = g * reduce_bucket(params, parallel) + e * min(params, LIVE_PARAMS)
        return RankBytes(
            e * shards, g * shards, 3 * MASTER_BYTES * shards, MASTER_BYTES * owned, live
        )
    partition = sum(group.partition for group in groups)
    owned = sum(group.owned for group in groups)
    touched = sum(group.touched for group in groups)
    kept, bucket = touched, reduce_bucket(params, parallel)
    if parallel.zero_stage == 1:
        kept, buffers = params, g * bucket
    elif wide:
        kept, buffers = partition, (e + g) * bucket
    else:
        buffers = e * (bucket + touched)
    if parallel.overlap_comm:
        buffers += e * bucket
    return RankBytes(
        params=e * partition * parallel.layout.replicas,
        gradients=g * kept,
        optimizer=MASTER_BYTES * sum((1 + group.moments) * group.partition for group in groups),
        ema=MASTER_BYTES * owned,
        buffers=buffers,
    )


def reduce_bucket(params: int, parallel: ParallelConfig) -> int:
    """Return the elements of the bucket of gradients of a rank with ``params`` parameters."""
    return min(params, OVERLAP_BUCKET if parallel.overlap_comm else REDUCE_BUCKET)


def element_bytes(parallel: ParallelConfig) -> int:
    """Return the bytes of an element of what the network computes with."""
    return 2 if parallel.precision is Precision.bf16 else 4


def gradient_bytes(parallel: ParallelConfig) -> int:
    """Return the bytes of an element of a gradient that is added up."""
    return MASTER_BYTES if parallel.widens_gradients else element_bytes(parallel)


def zero_groups(
    model: ModelConfig,
    parallel: ParallelConfig,
    place: Coordinates,
    kind: OptimizerKind = OptimizerKind.adamw,
) -> list[ZeroGroup]:
    """Return the optimizer's groups with anything in them, as the engine builds them."""
    layout = parallel.layout
    index = place.dp * layout.cp + place.cp
    held = rank_weights(model, layout, parallel.interleave, place).values()
    return [
        ZeroGroup(
            [prod(part_shape(weight, layout.tp)) for weight in weights],
            layout.replicas,
            index,
            len(moments_of(orthogonal)),
        )
        for weights, orthogonal in update_groups(held, orthogonal_names(model, kind))
    ]


def _clamp(value: int, most: int) -> int:
    return max(0, min(value, most))


# --- activations ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a data-parallel rank works on in one optimizer step.

    rows: of a pack, padded so that all ranks share them evenly. spans: its conditions, one a
    segment where each has one time. captions: its caption tokens (one for a segment without).
    micros: packs.
    """

    rows: int
    spans: int
    captions: int
    micros: int = 1


def checkpoint_bytes(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> int:
    """Return the bytes that a rank keeps from forward to backward under full recomputation.

    Each block keeps its own rows (R / cp tp, D) of the residual stream (Chen et al. 2016), each
    chunk the rotations (R / cp, E / 2), complex, of the rows its projections see; of as many
    micro-batches as are under way: under 1F1B at most one more than the stages that follow
    (Narayanan et al. 2021, section 2.2). What depends on spans and captions is left out.
    """
    layout = parallel.layout
    later, interleave = layout.pp - 1 - place.pp, parallel.interleave
    chunks = rank_chunks(model, layout, interleave, place)
    facts = specification_of(model)
    own = work.rows // layout.row_shards * facts.row_width * element_bytes(parallel)
    rotation = work.rows // layout.cp * facts.rotation * COMPLEX_BYTES
    kept = own * sum(len(chunk.blocks) for chunk in chunks) + rotation * len(chunks)
    if interleave == 1:
        return kept * min(later + 1, work.micros)
    ahead = 2 * later + (interleave - 1) * layout.pp + 1
    return ceil(kept * min(ahead, work.micros * interleave) / interleave)
