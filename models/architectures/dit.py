"""The diffusion transformer over packs (models/dit) as a value: the facts of its parameters."""

from typing import Any

from models.architecture import (
    Architecture,
    Attention,
    Block,
    Edge,
    Field,
    Initial,
    Kept,
    Reads,
    Role,
    Specification,
    Split,
    Weight,
    matrix,
)
from models.config import POSITION_FEATURES, ModelConfig

_ZEROS = Initial.zeros


def specify(model: ModelConfig) -> Specification:
    """Return the facts of ``models.dit.model.DiT``."""
    D, N = model.width, model.num_heads
    return Specification(
        before=_before(model),
        block=Block(
            weights=_block(model),
            attentions=(
                Attention("self_attention", Reads.rows, D),
                Attention("cross_attention", Reads.captions, D),
            ),
            # Rows of D that a block saves: its input and the modulated one, qkv, rotated and scaled
            # queries and keys, attention's output, the gated updates, cross-attention's four, and
            # the MLP's inputs and two hidden ones. Gathered: two normed inputs, scales and gates.
            kept=Kept(
                rows=(18 + 2 * model.mlp_ratio) * D,
                gathered=6 * D,
                exchanged=3 * D,
                statistics=6 + 8 * N,
                captions=4 * D,
                caption_statistics=2 * N,
                spans=12 * D,
            ),
            # Input, qkv and the other products of matrices, two attentions; partial sums over
            # tensor ranks and what each rank keeps of them.
            selective=Kept(
                rows=(10 + model.mlp_ratio) * D,
                exchanged=4 * D,
                summed=3 * D,
                statistics=2 * N,
                captions=2 * D,
            ),
            # Gradients on their way, measured.
            working=3.5 * D,
            gathered_working=1.5 * D,
            # Norms and modulation 16, normed and rotated queries and keys 16, cross-attention's
            # norms and sum 7, gates and sums 10, GELU 8, inputs and outputs of six products 20.
            traffic=77.0 * D,
        ),
        depth=model.depth,
        after=_after(model),
        stream=(
            Field("x", Reads.rows, D),
            Field("condition", Reads.spans, D),
            Field("modulation", Reads.spans, 6 * D),
            Field("caption", Reads.captions, D),
        ),
        # The last stream and what the head multiplies; values of V on the way.
        edge=Edge(rows=2 * D, gathered=2 * D, values=6 * model.values_per_token),
        rotation=model.head_dim // 2,
    )


def _before(model: ModelConfig) -> tuple[Weight, ...]:
    D, T, X = model.width, model.time_features, model.text_width
    embedding: dict[str, Any] = {"role": Role.embedding}
    condition: dict[str, Any] = {"part": "conditioning", "reads": Reads.spans}
    # Gates of the residual branches start at one: see models/network.py.
    gates = (0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
    return (
        Weight("null_caption", (X,), "conditioning", initial=Initial.normal),
        matrix("patch_in", D, model.values_per_token, "embedding", **embedding),
        Weight("patch_in.bias", (D,), "embedding"),
        matrix("place_in", D, POSITION_FEATURES, "embedding", **embedding),
        matrix("condition.0", D, 2 * T, **condition, **embedding),
        Weight("condition.0.bias", (D,), "conditioning"),
        matrix("condition.2", D, D, **condition),
        Weight("condition.2.bias", (D,), "conditioning"),
        matrix("modulation", 6 * D, D, "modulation", Reads.spans, Split(0), initial=_ZEROS),
        Weight("modulation.bias", (6 * D,), "modulation", initial=gates, cut=Split(0)),
        matrix("caption_in", D, X, "conditioning", Reads.captions, **embedding),
        Weight("caption_in.bias", (D,), "conditioning"),
    )


def _block(model: ModelConfig) -> tuple[Weight, ...]:
    D, N, hidden = model.width, model.num_heads, model.mlp_ratio * model.width
    heads: dict[str, Any] = {"initial": Initial.ones, "cut": Split(0)}
    own, cross, mlp = "self_attention", "cross_attention", "mlp"
    return (
        Weight("offset", (6 * D,), "modulation"),
        Weight("self_attention.temperature", (N,), own, **heads),
        matrix("self_attention.qkv", 3 * D, D, own, cut=Split(0, groups=3)),
        matrix("self_attention.out", D, D, own, cut=Split(1)),
        Weight("cross_attention.temperature", (N,), cross, **heads),
        Weight("cross_attention.norm.weight", (D,), cross, initial=Initial.ones),
        matrix("cross_attention.q", D, D, cross, cut=Split(0)),
        matrix("cross_attention.kv", 2 * D, D, cross, Reads.captions, Split(0, groups=2)),
        matrix("cross_attention.out", D, D, cross, cut=Split(1), initial=_ZEROS),
        matrix("mlp.0", hidden, D, mlp, cut=Split(0)),
        Weight("mlp.0.bias", (hidden,), mlp, cut=Split(0)),
        matrix("mlp.2", D, hidden, mlp, cut=Split(1)),
        Weight("mlp.2.bias", (D,), mlp),
    )


def _after(model: ModelConfig) -> tuple[Weight, ...]:
    D, V = model.width, model.values_per_token
    reads, cut = Reads.spans, Split(0)
    return (
        matrix("head_modulation", 2 * D, D, "modulation", reads, cut, initial=_ZEROS),
        Weight("head_modulation.bias", (2 * D,), "modulation", cut=cut),
        matrix("head", V, D, "head", role=Role.head, initial=_ZEROS),
        Weight("head.bias", (V,), "head"),
    )


def build(config: ModelConfig, *parts: Any) -> Any:
    """Build the network; torch is imported here, so that planners need not wait for it."""
    from models.dit.model import DiT

    return DiT(config, *parts)


def _check(model: ModelConfig) -> None:
    if model.options.get("base_depth", 1) <= 0:
        raise ValueError(
            f"model.options.base_depth={model.options['base_depth']}: must be positive. Use 4, or "
            "leave it out."
        )


OPTIONS = {
    "base_depth": "Residual branches count base_depth / depth, so that a learning rate keeps its "
    "meaning at another depth (CompleteP, Dey et al. 2025); without it they count whole."
}
ARCHITECTURE = Architecture(specify, build, OPTIONS, _check)
