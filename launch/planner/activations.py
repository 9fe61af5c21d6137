"""Bytes that a rank keeps between forward and backward, in closed form for ``models.dit``.

Counted over models/dit/blocks.py, in rows of the width D that autograd saves for a block; checked
against the allocator for every mode of recomputation (benchmarks/plan_memory.py). With tp tensor
and cp context ranks a rank has R = rows / (tp cp) own rows; what lies inside a tensor-parallel
layer (rows / cp, D / tp) is as large, but for inputs gathered from all tensor ranks, which are tp
times it.
"""

from dataclasses import dataclass
from math import ceil

from models.config import POSITION_FEATURES, ModelConfig
from trainer.layout.config import ParallelConfig, Recompute
from trainer.layout.cost import COMPLEX_BYTES, element_bytes

# Rows of D that a block saves: its input and the modulated one, qkv, rotated and scaled queries and
# keys, attention's output, the gated updates, cross-attention's four, the MLP's 4 + 4 and inputs.
BLOCK_ROWS = 18  # without the MLP's hidden rows
# Where rows are gathered (CUDA, compiled): two normed inputs, two scales and two gates more.
GATHERED_ROWS = 6
# Kept by selective recomputation: input, qkv and the other products of matrices, two attentions.
SELECTIVE_ROWS, SELECTIVE_HIDDEN = 10, 1
EXCHANGE_ROWS, SELECTIVE_EXCHANGE_ROWS = 3, 4  # more where context ranks trade rows for heads
# Of the backward pass of one block beyond what it saved, measured: gradients on their way.
WORKING_ROWS, GATHERED_WORKING_ROWS = 3.5, 1.5
# Outside of blocks: the last stream and what the head multiplies, and values of V on the way.
HEAD_ROWS, GATHERED_HEAD_ROWS, EDGE_VALUES = 2, 2, 6
STATISTICS_BYTES = 4  # means and deviations of norms, and attention's normalisers, are fp32


@dataclass(frozen=True)
class PackShape:
    """One micro-batch: rows of the buffer, segments, caption tokens of all segments."""

    rows: int
    segments: int
    captions: int


def block_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool, mode: Recompute
) -> float:
    """Return what one block keeps of one pack under a mode of recomputation."""
    e, tp = element_bytes(parallel), parallel.tp
    own, row = pack.rows / parallel.layout.row_shards, model.width * e
    if mode is Recompute.full:
        return own * row
    heads = model.num_heads * STATISTICS_BYTES
    if mode is Recompute.selective:
        rows = SELECTIVE_ROWS + SELECTIVE_HIDDEN * model.mlp_ratio
        rows += 3 * (tp - 1) + 3 if tp > 1 else 0  # partial sums and what each rank keeps of them
        rows += SELECTIVE_EXCHANGE_ROWS if parallel.cp > 1 else 0
        statistics = own * 2 * heads
        captions = pack.captions * 2 * row / tp
    else:
        rows = BLOCK_ROWS + 2 * model.mlp_ratio + (GATHERED_ROWS if gathers else 0)
        rows += 3 * (tp - 1) + (EXCHANGE_ROWS if parallel.cp > 1 else 0)
        statistics = own * (6 * STATISTICS_BYTES + 8 * heads)
        captions = pack.captions * (4 * row + 2 * heads) / tp
        captions += pack.segments * 12 * row
    return own * rows * row + statistics + captions


def edge_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool
) -> float:
    """Return what embeddings, head and loss keep of one pack; counted on every stage."""
    own = pack.rows / parallel.layout.row_shards
    rows = HEAD_ROWS + (GATHERED_HEAD_ROWS if gathers else 0)
    values = EDGE_VALUES * model.values_per_token * 4
    return own * (rows * model.width * element_bytes(parallel) + values)


def rotation_bytes(model: ModelConfig, parallel: ParallelConfig, pack: PackShape) -> float:
    """Return the rotary factors that a chunk of blocks keeps, of the rows its projections see."""
    return pack.rows / parallel.cp * (model.head_dim // 2) * COMPLEX_BYTES


def working_bytes(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool
) -> float:
    """Return the largest extra need of a block's backward pass: what it computes again, gradients.

    That block's own share of what was kept is not needed twice.
    """
    own = pack.rows / parallel.layout.row_shards
    whole = block_bytes(model, parallel, pack, gathers, Recompute.none)
    kept = block_bytes(model, parallel, pack, gathers, parallel.recompute)
    rows = GATHERED_WORKING_ROWS if gathers else WORKING_ROWS
    return whole - kept + own * rows * model.width * element_bytes(parallel)


def packs_in_flight(parallel: ParallelConfig, stage: int, micros: int) -> float:
    """Return how many packs a stage keeps for its blocks, in packs through all its chunks.

    As many as ``trainer.parallel.pipeline.schedule`` runs ahead, and the one at work (1F1B:
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
    and after an exchange. Pipeline: a message each way.
    """
    e, seen = element_bytes(parallel), pack.rows / parallel.cp
    total = 0.0
    if parallel.tp > 1:
        total += 2 * seen * model.width * e
    if parallel.cp > 1:
        total += 2 * 3 * seen * model.width / parallel.tp * e
    if parallel.pp > 1:
        own = ceil(pack.rows / parallel.layout.row_shards)
        total += 2 * model.width * (own + 7 * pack.segments + pack.captions) * e
    return total
