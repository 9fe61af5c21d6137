"""Bytes that a rank keeps between forward and backward, from the network's specification.

What autograd saves for a block stands there (``models.architecture.Kept``); checked against the
allocator for every mode of recomputation (benchmarks/plan_memory.py). With tp tensor and cp context
ranks a rank has R = rows / (tp cp) own rows; what lies inside a tensor-parallel layer (rows / cp,
D / tp) is as large, but for inputs gathered from all tensor ranks, which are tp times it.
"""

from dataclasses import dataclass
from math import ceil

from models.architecture import specification_of
from models.config import POSITION_FEATURES, ModelConfig
from trainer.layout.config import ParallelConfig, Recompute
from trainer.layout.cost import COMPLEX_BYTES, element_bytes
from trainer.layout.messages import messages_held

FP32_BYTES = 4  # of statistics and of what the loss works on, whatever the network's precision


@dataclass(frozen=True)
class PackShape:
    """One micro-batch: rows of the buffer, spans, caption tokens of all segments."""

    rows: int
    spans: int
    captions: int


def block_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool, mode: Recompute
) -> float:
    """Return what one block keeps of one pack under a mode of recomputation."""
    e, tp, facts = element_bytes(parallel), parallel.tp, specification_of(model)
    own = pack.rows / parallel.layout.row_shards
    if mode is Recompute.full:
        return own * facts.row_width * e
    selective = mode is Recompute.selective
    kept = facts.block.selective if selective else facts.block.kept
    values = kept.rows + (kept.gathered if gathers else 0)
    values += (tp - 1) * sum(facts.sums if selective else facts.gathers)
    values += kept.summed if tp > 1 else 0
    head_ranks, key_ranks = parallel.context_split(model.num_heads)
    values += kept.exchanged if head_ranks > 1 else 0
    values += 0 if selective else 2 * (key_ranks - 1) * sum(facts.exchanges)
    captions = pack.captions * (kept.captions * e + kept.caption_statistics * FP32_BYTES) / tp
    spans = pack.spans * kept.spans * e
    return own * (values * e + kept.statistics * FP32_BYTES) + captions + spans


def edge_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool
) -> float:
    """Return what embeddings, head and loss keep of one pack; counted on every stage."""
    own, edge = pack.rows / parallel.layout.row_shards, specification_of(model).edge
    values = edge.rows + (edge.gathered if gathers else 0)
    return own * (values * element_bytes(parallel) + edge.values * FP32_BYTES)


def rotation_bytes(model: ModelConfig, parallel: ParallelConfig, pack: PackShape) -> float:
    """Return the rotary factors that a chunk of blocks keeps, of the rows its projections see."""
    return pack.rows / parallel.cp * specification_of(model).rotation * COMPLEX_BYTES


def working_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool
) -> float:
    """Return the largest extra need of a block's backward pass: what it computes again, gradients.

    That block's own share of what was kept is not needed twice.
    """
    own = pack.rows / parallel.layout.row_shards
    whole = block_bytes(model, parallel, pack, gathers, Recompute.none)
    kept = block_bytes(model, parallel, pack, gathers, parallel.recompute)
    block = specification_of(model).block
    values = block.gathered_working if gathers else block.working
    return whole - kept + own * values * element_bytes(parallel)


def packs_in_flight(parallel: ParallelConfig, stage: int, micros: int) -> float:
    """Return how many packs a stage keeps for its blocks, in packs through all its chunks.

    As many as ``trainer.layout.messages.schedule`` runs ahead, and the one at work (1F1B:
    Narayanan et al. 2021).
    """
    pp, chunks = parallel.pp, parallel.interleave
    ahead = pp - 1 - stage
    if chunks > 1:
        ahead = 2 * ahead + (chunks - 1) * pp
    return min(ahead + 1, micros * chunks) / chunks


def pack_bytes(model: ModelConfig, parallel: ParallelConfig, pack: PackShape, micros: int) -> float:
    """Return the packs of a step on a rank: latents, noise, masks, places, captions; fp32.

    All micro-batches of a step are prepared before it runs.
    """
    own = pack.rows / parallel.layout.row_shards
    row = model.values_per_token * (4 + 4 + 1) + POSITION_FEATURES * 4 + 8
    seen = pack.rows / parallel.cp
    each = own * row + seen * 3 * 8 + pack.captions * model.text_width * 4
    return micros * each


def message_bytes(model: ModelConfig, parallel: ParallelConfig, pack: PackShape) -> float:
    """Return the buffers of collectives and messages that a rank holds at a time, at most.

    Tensor ranks: gathered rows and their gradient. Context ranks: queries, keys and values before
    and after an exchange, keys and values that were gathered and their gradients. Pipeline: what
    leaves, and what is received ahead of its use.
    """
    e, seen = element_bytes(parallel), pack.rows / parallel.cp
    facts, total = specification_of(model), 0.0
    if parallel.tp > 1:
        total += 2 * seen * max(facts.gathers, default=0) * e
    if parallel.cp > 1:
        _, key_ranks = parallel.context_split(model.num_heads)
        widest = seen * max(facts.exchanges, default=0) / parallel.tp * e
        total += 2 * 3 * widest
        total += 2 * 2 * key_ranks * widest if key_ranks > 1 else 0
    if parallel.pp > 1:
        own = ceil(pack.rows / parallel.layout.row_shards)
        held = messages_held(parallel.pp, parallel.interleave)
        total += held * facts.message_values(own, pack.spans, pack.captions) * e
    return total
