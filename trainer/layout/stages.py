"""Which blocks each pipeline stage holds: contiguous chunks of nearly equal cost; torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from models.architecture import Reads, Weight, products, specification_of
from models.config import ModelConfig
from models.count import BACKWARD_FACTOR

# The segment whose cost stands for all: a pack's attention depends on its clips, the balance of
# stages hardly does, since blocks are alike and only embeddings and head differ from them.
SEGMENT_TOKENS, SEGMENT_CAPTION = 1024, 32


@dataclass(frozen=True)
class Chunk:
    """A contiguous run of blocks; the first chunk also embeds, the last also reads out."""

    blocks: range
    is_first: bool
    is_last: bool


def cut_chunks(model: ModelConfig, count: int) -> list[Chunk]:
    """Cut a model into ``count`` chunks so that the costliest is as cheap as can be."""
    ends, block = part_costs(model)
    costs = [block] * model.depth
    costs[0] += ends[0]
    costs[-1] += ends[1]
    starts = [0, *_best_cuts(tuple(costs), count)]
    stops = [*starts[1:], model.depth]
    return [
        Chunk(range(start, stop), start == 0, stop == model.depth)
        for start, stop in zip(starts, stops, strict=True)
    ]


def part_costs(model: ModelConfig) -> tuple[tuple[float, float], float]:
    """Return ((embeddings, head), block) in FLOPs of a typical segment."""
    facts, s, c = specification_of(model), SEGMENT_TOKENS, SEGMENT_CAPTION
    keys = {Reads.rows: s, Reads.captions: c}
    attended = sum(4 * s * keys[a.keys] * a.width for a in facts.block.attentions)
    block = _matrix_flops(facts.block.weights) + attended
    ends = (float(BACKWARD_FACTOR * _matrix_flops(w)) for w in (facts.before, facts.after))
    first, last = ends
    return (first, last), float(BACKWARD_FACTOR * block)


def _matrix_flops(weights: Sequence[Weight]) -> int:
    """Return forward FLOPs of matrix products over the typical segment."""
    times = {Reads.rows: SEGMENT_TOKENS, Reads.captions: SEGMENT_CAPTION, Reads.spans: 1}
    return 2 * sum(count * products(weights, reads) for reads, count in times.items())


def _best_cuts(costs: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the places of the count - 1 cuts that make the largest sum smallest."""

    @cache
    def best(start: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return sum(costs[start:]), ()
        options = []
        for cut in range(start + 1, len(costs) - parts + 2):
            rest, cuts = best(cut, parts - 1)
            options.append((max(sum(costs[start:cut]), rest), (cut, *cuts)))
        return min(options)

    return best(0, count)[1]


def chunks_of(chunks: list[Chunk], stage: int, stages: int) -> list[Chunk]:
    """Return the chunks of a stage: chunk k lies on stage k modulo the number of stages."""
    return chunks[stage::stages]
