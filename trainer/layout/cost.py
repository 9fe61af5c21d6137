"""What one rank of a layout holds and sends, in closed form; torch-free.

Bytes of a collective are stated twice: ``payload``, what the rank hands to the call, which a
recorder of calls can check; and ``wire``, what it sends in a ring of n ranks (Patarasuk and Yuan
2009), with b the payload: gather (n - 1) b, reduce-scatter and all-to-all (n - 1) / n b, all-reduce
2 (n - 1) / n b. A group of one rank sends nothing and counts as nothing. Scalars (norms, losses)
are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil, prod

from models.architecture import Reads, specification_of
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.optimizer import OptimizerKind, moments_of, orthogonal_names, update_groups
from trainer.layout.shapes import part_shape, rank_chunks, rank_weights

COMPLEX_BYTES = 8
MASTER_BYTES = 4  # master weights, moments and averages are fp32 always
# In elements: the largest bucket of gradients on their way (the engine takes a smaller one for a
# smaller model), and DeepSpeed 0.19's default of what ZeRO 3 keeps gathered.
REDUCE_BUCKET, LIVE_PARAMS = 500_000_000, 1_000_000_000
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
    several chunks, is reduced into it.
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
class _Group:
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
    e, groups = element_bytes(parallel), _groups(model, parallel, place, kind)
    g, wide = gradient_bytes(parallel), parallel.widens_gradients
    params = sum(sum(group.sizes) for group in groups)
    if parallel.zero_stage == 0:
        bucket = reduce_bucket(params)
        moments = sum(group.moments * sum(group.sizes) for group in groups)
        return RankBytes(e * params, e * params, 4 * moments, 4 * params, e * bucket)
    if parallel.zero_stage == 3:
        shards = sum(group.shards for group in groups)
        owned = sum(group.owned_shards for group in groups)
        live = g * reduce_bucket(params) + e * min(params, LIVE_PARAMS)
        return RankBytes(
            e * shards, g * shards, 3 * MASTER_BYTES * shards, MASTER_BYTES * owned, live
        )
    partition = sum(group.partition for group in groups)
    owned = sum(group.owned for group in groups)
    touched = sum(group.touched for group in groups)
    kept, bucket = touched, reduce_bucket(params)
    if parallel.zero_stage == 1:
        kept, buffers = params, g * bucket
    elif wide:
        kept, buffers = partition, (e + g) * bucket
    else:
        buffers = e * (bucket + touched)
    return RankBytes(
        params=e * partition * parallel.layout.replicas,
        gradients=g * kept,
        optimizer=MASTER_BYTES * sum((1 + group.moments) * group.partition for group in groups),
        ema=MASTER_BYTES * owned,
        buffers=buffers,
    )


def reduce_bucket(params: int) -> int:
    """Return the elements of the bucket of gradients of a rank with ``params`` parameters."""
    return min(params, REDUCE_BUCKET)


def element_bytes(parallel: ParallelConfig) -> int:
    """Return the bytes of an element of what the network computes with."""
    return 2 if parallel.precision is Precision.bf16 else 4


def gradient_bytes(parallel: ParallelConfig) -> int:
    """Return the bytes of an element of a gradient that is added up."""
    return MASTER_BYTES if parallel.widens_gradients else element_bytes(parallel)


def _groups(
    model: ModelConfig,
    parallel: ParallelConfig,
    place: Coordinates,
    kind: OptimizerKind = OptimizerKind.adamw,
) -> list[_Group]:
    """Return the optimizer's groups with anything in them, as the engine builds them."""
    layout = parallel.layout
    index = place.dp * layout.cp + place.cp
    held = rank_weights(model, layout, parallel.interleave, place).values()
    return [
        _Group(
            [prod(part_shape(weight, layout.tp)) for weight in weights],
            layout.replicas,
            index,
            len(moments_of(orthogonal)),
        )
        for weights, orthogonal in update_groups(held, orthogonal_names(model, kind))
    ]


def _clamp(value: int, most: int) -> int:
    return max(0, min(value, most))


# --- traffic --------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Flow:
    """Calls of one kind in a step, the bytes a rank hands to them, and those it sends in a ring."""

    calls: int = 0
    payload: int = 0
    wire: int = 0


@dataclass(frozen=True)
class Traffic:
    """What a rank sends in one optimizer step, by axis and kind.

    Calls of the last three depend on DeepSpeed's buckets and are only roughly known.
    """

    tp_gather: Flow = Flow()
    tp_reduce_scatter: Flow = Flow()
    tp_all_reduce: Flow = Flow()
    cp_all_to_all: Flow = Flow()
    cp_gather: Flow = Flow()
    cp_reduce_scatter: Flow = Flow()
    pp_send: Flow = Flow()
    zero_gather: Flow = Flow()
    zero_reduce_scatter: Flow = Flow()
    zero_all_reduce: Flow = Flow()

    @property
    def wire(self) -> int:
        """Bytes sent, of all kinds."""
        return sum(flow.wire for _, flow in self.flows())

    def flows(self) -> Iterator[tuple[str, Flow]]:
        """Yield (name, flow) of every kind."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


def step_traffic(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> Traffic:
    """Return what a rank sends in one optimizer step."""
    flows = _tensor_flows(model, parallel, place, work)
    flows |= _context_flows(model, parallel, place, work)
    flows |= _pipeline_flows(model, parallel, place, work)
    flows |= _zero_flows(model, parallel, place, work)
    return Traffic(**flows)


def _passes(
    model: ModelConfig,
    parallel: ParallelConfig,
    place: Coordinates,
    work: Work,
    again: tuple[Recompute, ...],
) -> int:
    """Return how often a block's collective happens: forward, mirrored backward, recomputed.

    again: the modes of recomputation that repeat it (trainer/parallel/recompute.py).
    """
    chunks = rank_chunks(model, parallel.layout, parallel.interleave, place)
    times = 3 if parallel.recompute in again else 2
    return times * work.micros * sum(len(chunk.blocks) for chunk in chunks)


def _tensor_flows(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> dict[str, Flow]:
    """Tensor and sequence parallelism (Korthikanti et al. 2022, section 4.2.2).

    Around self-attention, cross-attention and MLP each: a gather of own rows (R / cp tp, D) before,
    a reduce-scatter of (R / cp, D) after; backward the other way round. Gathered rows are not kept
    under selective recomputation. Cut layers over conditions, such as both modulations, are put
    together from parts of (T, 6 D / tp) and (T, 2 D / tp). The gradient of each whole parameter is
    summed once a micro-batch, since each rank sees the rows it holds.
    """
    layout, e = parallel.layout, element_bytes(parallel)
    if layout.tp == 1:
        return {}
    facts = specification_of(model)
    gathers = _passes(model, parallel, place, work, (Recompute.selective, Recompute.full))
    scatters = _passes(model, parallel, place, work, (Recompute.full,))
    own = work.rows // layout.row_shards * e
    weights = rank_weights(model, layout, parallel.interleave, place).values()
    whole = [weight.size for weight in weights if weight.cut is None]
    joined = [
        part_shape(weight, layout.tp)[0]
        for weight in weights
        if weight.cut is not None and weight.reads is Reads.spans
    ]
    parts = work.micros * work.spans * e * sum(joined)
    more = work.micros * len(joined)
    return {
        "tp_gather": _gather(
            gathers * len(facts.gathers) + more,
            gathers * own * sum(facts.gathers) + parts,
            layout.tp,
        ),
        "tp_reduce_scatter": _scatter(
            scatters * len(facts.sums) + more,
            (scatters * own * sum(facts.sums) + parts) * layout.tp,
            layout.tp,
        ),
        "tp_all_reduce": _all_reduce(
            work.micros * len(whole), work.micros * e * sum(whole), layout.tp
        ),
    }


def _context_flows(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> dict[str, Flow]:
    """Context parallelism (Jacobs et al. 2023, section 3.2): 4 R D / (cp tp) elements a block.

    One all-to-all of queries, keys and values together and one of the output, forward and backward,
    for each attention among rows. Groups that trade heads gather keys and values from each other,
    2 R D / (cp tp) elements of a rank, and sum their gradients back. Selective recomputation
    gathers again, as tensor ranks do.
    """
    layout, e = parallel.layout, element_bytes(parallel)
    if layout.cp == 1:
        return {}
    passes = _passes(model, parallel, place, work, (Recompute.full,))
    widths = specification_of(model).exchanges
    heads, keys = parallel.context_split(model.num_heads)
    own, flows = (work.rows // layout.cp) * (sum(widths) // layout.tp) * e, {}
    if heads > 1:
        flows["cp_all_to_all"] = _scatter(2 * passes * len(widths), passes * 4 * own, heads)
    if keys > 1:
        back, both = _passes(model, parallel, place, work, ()) // 2, 2 * own
        ahead = _passes(model, parallel, place, work, (Recompute.selective, Recompute.full)) - back
        flows["cp_gather"] = _gather(ahead * len(widths), ahead * both, keys)
        flows["cp_reduce_scatter"] = _scatter(back * len(widths), back * both * keys, keys)
    return flows


def _pipeline_flows(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> dict[str, Flow]:
    """Messages between stages: the fields of the network's stream, and back.

    A rank receives as many bytes as it sends.
    """
    layout, e = parallel.layout, element_bytes(parallel)
    chunks = rank_chunks(model, layout, parallel.interleave, place)
    sends = sum(not c.is_last for c in chunks) + sum(not c.is_first for c in chunks)
    size = message_values(model, layout, work) * e
    calls = work.micros * sends
    return {"pp_send": Flow(calls, calls * size, calls * size)}


def message_values(model: ModelConfig, layout: Layout, work: Work) -> int:
    """Return the values of a message between pipeline stages."""
    facts = specification_of(model)
    return facts.message_values(work.rows // layout.row_shards, work.spans, work.captions)


def _zero_flows(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, work: Work
) -> dict[str, Flow]:
    """ZeRO as DeepSpeed 0.19 does it, over the R ranks that share a replica's state.

    P parameters a rank; payloads: 0: one all-reduce of P. 1: the same, then a gather of P / R.
    2: as 1, but an all-reduce every micro-batch. 3: every micro-batch a reduce-scatter of P and,
    once the order is known after the first step, gathers of (2 P - min(P, L)) / R: what is among
    the last L = 1e9 elements of the forward pass is still there for the backward pass. (That is to
    within a parameter; recomputation adds up to the blocks' share where L is less than a block.)
    Rajbhandari et al. 2020, section 7, reckon with reduce-scatters for 1 and 2, half of an
    all-reduce; DeepSpeed all-reduces buckets that several ranks own
    (use_multi_rank_bucket_allreduce).
    """
    e, g, n = element_bytes(parallel), gradient_bytes(parallel), parallel.layout.replicas
    groups = _groups(model, parallel, place)
    if n == 1:
        return {}
    params = sum(sum(group.sizes) for group in groups)
    buckets = ceil(params / reduce_bucket(params))
    if parallel.zero_stage == 3:
        shards = sum(group.shards for group in groups)
        gathered = work.micros * (2 * shards - shards * min(params, LIVE_PARAMS) // params)
        scattered = work.micros * shards * n
        return {
            "zero_gather": _gather(work.micros, e * gathered, n),
            "zero_reduce_scatter": _scatter(work.micros * buckets, g * scattered, n),
        }
    times = work.micros if parallel.zero_stage == 2 else 1
    flows = {"zero_all_reduce": _all_reduce(times * buckets, times * g * params, n)}
    if parallel.zero_stage:
        partition = sum(group.partition for group in groups)
        flows["zero_gather"] = _gather(len(groups), e * partition, n)
    return flows


def _gather(calls: int, payload: int, ranks: int) -> Flow:
    return Flow(calls, payload, (ranks - 1) * payload)


def _scatter(calls: int, payload: int, ranks: int) -> Flow:
    return Flow(calls, payload, (ranks - 1) * payload // ranks)


def _all_reduce(calls: int, payload: int, ranks: int) -> Flow:
    return Flow(calls, payload, 2 * (ranks - 1) * payload // ranks)


# --- activations ----------------------------------------------------------------------------------


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
