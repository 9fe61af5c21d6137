"""The parameters that one rank of a layout holds, from the network's specification; torch-free."""

from math import prod

from models.architecture import Shape, Weight, specification_of
from models.config import ModelConfig
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.stages import Chunk, chunks_of, cut_chunks


def rank_weights(
    model: ModelConfig, layout: Layout, interleave: int, place: Coordinates
) -> dict[str, Weight]:
    """Return every parameter that a rank holds a part of, in ``named_parameters`` order.

    The blocks of its pipeline stage's chunks, with the embeddings on the first and the head on the
    last.
    """
    facts, chunks = specification_of(model), rank_chunks(model, layout, interleave, place)
    held = list(facts.before) if chunks[0].is_first else []
    for chunk in chunks:
        for number in chunk.blocks:
            held += facts.numbered(number)
    held += facts.after if chunks[-1].is_last else ()
    return {weight.name: weight for weight in held}


def rank_shapes(
    model: ModelConfig, layout: Layout, interleave: int, place: Coordinates
) -> dict[str, Shape]:
    """Return name and shape of every parameter that a rank holds.

    Of each cut parameter one part of ``layout.tp`` (Shoeybi et al. 2019).
    """
    weights = rank_weights(model, layout, interleave, place)
    return {name: part_shape(weight, layout.tp) for name, weight in weights.items()}


def rank_params(model: ModelConfig, layout: Layout, interleave: int, place: Coordinates) -> int:
    """Count the parameters that a rank holds before ZeRO shards anything."""
    return sum(prod(shape) for shape in rank_shapes(model, layout, interleave, place).values())


def rank_chunks(
    model: ModelConfig, layout: Layout, interleave: int, place: Coordinates
) -> list[Chunk]:
    """Return the chunks of a rank's pipeline stage."""
    return chunks_of(cut_chunks(model, layout.pp * interleave), place.pp, layout.pp)


def part_shape(weight: Weight, count: int) -> Shape:
    """Return the shape of what a tensor rank holds of a parameter."""
    return weight.shape if weight.cut is None else weight.cut.shape(weight.shape, count)
