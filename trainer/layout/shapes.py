"""Shapes of the parameters that one rank of a layout holds, in closed form; torch-free."""

from math import prod

from models.config import ModelConfig
from models.dit.count import POSITION_FEATURES
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.plan import split_of
from trainer.layout.stages import Chunk, chunks_of, cut_chunks

Shape = tuple[int, ...]


def rank_shapes(
    model: ModelConfig, layout: Layout, interleave: int, place: Coordinates
) -> dict[str, Shape]:
    """Return name and shape of every parameter that a rank holds, in ``named_parameters`` order.

    The blocks of its pipeline stage's chunks, with the embeddings on the first and the head on the
    last; of each cut parameter one part of ``layout.tp`` (Shoeybi et al. 2019).
    """
    whole: dict[str, Shape] = {}
    chunks = rank_chunks(model, layout, interleave, place)
    if chunks[0].is_first:
        whole |= _first_shapes(model)
    for chunk in chunks:
        for number in chunk.blocks:
            named = _block_shapes(model).items()
            whole |= {f"blocks.{number}.{name}": shape for name, shape in named}
    if chunks[-1].is_last:
        whole |= _last_shapes(model)
    return {name: _part(name, shape, layout.tp) for name, shape in whole.items()}


def rank_params(model: ModelConfig, layout: Layout, interleave: int, place: Coordinates) -> int:
    """Count the parameters that a rank holds before ZeRO shards anything."""
    return sum(prod(shape) for shape in rank_shapes(model, layout, interleave, place).values())


def rank_chunks(
    model: ModelConfig, layout: Layout, interleave: int, place: Coordinates
) -> list[Chunk]:
    """Return the chunks of a rank's pipeline stage."""
    return chunks_of(cut_chunks(model, layout.pp * interleave), place.pp, layout.pp)


def _part(name: str, shape: Shape, count: int) -> Shape:
    split = split_of(name)
    return shape if split is None else split.shape(shape, count)


def _first_shapes(model: ModelConfig) -> dict[str, Shape]:
    D, T = model.width, model.time_features
    return {
        "null_caption": (model.text_width,),
        "patch_in.weight": (D, model.values_per_token),
        "patch_in.bias": (D,),
        "place_in.weight": (D, POSITION_FEATURES),
        "condition.0.weight": (D, 2 * T),
        "condition.0.bias": (D,),
        "condition.2.weight": (D, D),
        "condition.2.bias": (D,),
        "modulation.weight": (6 * D, D),
        "modulation.bias": (6 * D,),
        "caption_in.weight": (D, model.text_width),
        "caption_in.bias": (D,),
    }


def _block_shapes(model: ModelConfig) -> dict[str, Shape]:
    D, N, hidden = model.width, model.num_heads, model.mlp_ratio * model.width
    return {
        "offset": (6 * D,),
        "self_attention.temperature": (N,),
        "self_attention.qkv.weight": (3 * D, D),
        "self_attention.out.weight": (D, D),
        "cross_attention.temperature": (N,),
        "cross_attention.norm.weight": (D,),
        "cross_attention.q.weight": (D, D),
        "cross_attention.kv.weight": (2 * D, D),
        "cross_attention.out.weight": (D, D),
        "mlp.0.weight": (hidden, D),
        "mlp.0.bias": (hidden,),
        "mlp.2.weight": (D, hidden),
        "mlp.2.bias": (D,),
    }


def _last_shapes(model: ModelConfig) -> dict[str, Shape]:
    D, V = model.width, model.values_per_token
    return {
        "head_modulation.weight": (2 * D, D),
        "head_modulation.bias": (2 * D,),
        "head.weight": (V, D),
        "head.bias": (V,),
    }
