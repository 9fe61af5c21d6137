"""What one rank of a layout sends, in closed form; torch-free. What it holds: ``cost.py``.

Bytes of a collective are stated twice: ``payload``, what the rank hands to the call, which a
recorder of calls can check; and ``wire``, what it sends in a ring of n ranks (Patarasuk and Yuan
2009), with b the payload: gather (n - 1) b, reduce-scatter and all-to-all (n - 1) / n b, all-reduce
2 (n - 1) / n b. A group of one rank sends nothing and counts as nothing. Scalars (norms, losses)
are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil

from models.architecture import Reads, specification_of
from models.config import ModelConfig
from trainer.layout import cost
from trainer.layout.config import ParallelConfig, Recompute
from trainer.layout.cost import Work, element_bytes, gradient_bytes, reduce_bucket
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.shapes import part_shape, rank_chunks, rank_weights


@dataclass(frozen=True)
class Flow:
    """Calls of one kind in a step, the bytes a rank hands to them, and those it sends in a ring."""

    calls: int = 0
    payload: int = 0
    wire: int = 0


@dataclass(frozen=True)
class Traffic:
    """What a rank sends in one optimizer step, by axis and kind.

    Calls of the last four depend on DeepSpeed's buckets and are only roughly known. zero_reduce: of
    each gradient to the rank that owns it (parallel.reduce_scatter).
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
    zero_reduce: Flow = Flow()

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
    (use_multi_rank_bucket_allreduce) unless parallel.reduce_scatter asks for a reduction to each.
    """
    e, g, n = element_bytes(parallel), gradient_bytes(parallel), parallel.layout.replicas
    groups = cost.zero_groups(model, parallel, place)
    if n == 1:
        return {}
    params = sum(sum(group.sizes) for group in groups)
    buckets = ceil(params / reduce_bucket(params, parallel))
    if parallel.zero_stage == 3:
        shards = sum(group.shards for group in groups)
        gathered = work.micros * (2 * shards - shards * min(params, cost.LIVE_PARAMS) // params)
        scattered = work.micros * shards * n
        return {
            "zero_gather": _gather(work.micros, e * gathered, n),
            "zero_reduce_scatter": _scatter(work.micros * buckets, g * scattered, n),
        }
    times = work.micros if parallel.zero_stage == 2 else 1
    if parallel.reduce_scatter:
        flows = {"zero_reduce": _scatter(times * buckets * n, times * g * params, n)}
    else:
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
