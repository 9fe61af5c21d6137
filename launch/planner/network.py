"""A transformer as a planner sees it: what decides time, for ours and for published ones."""

from dataclasses import dataclass

from models.architecture import Reads, products, specification_of
from models.config import ModelConfig
from models.count import count_params

# Values that elementwise kernels and products move for a token in a block of a published network,
# in units of the width: as much as in our DiT (models/architectures/dit.py), which was counted.
PUBLISHED_TRAFFIC = 77.0


@dataclass(frozen=True)
class Network:
    """A stack of equal blocks.

    params: all of them. outside: those outside of blocks that every token is multiplied with.
    token_params, caption_params: of a block, with which a token and a caption token are multiplied.
    attended, caption_attended: values of a block's attentions over tokens and over captions.
    gathers: layers of a block that read the rows of all tensor ranks. kv_width: of keys and values.
    causal: a token sees earlier ones only. traffic: see ``models.architecture.Block``.
    """

    layers: int
    width: int
    params: float
    token_params: float
    attended: int
    gathers: int
    traffic: float
    kv_width: int
    caption_params: float = 0.0
    caption_attended: int = 0
    outside: float = 0.0
    causal: bool = False

    @classmethod
    def of(cls, model: ModelConfig) -> "Network":
        """Describe one of our networks, from its specification."""
        facts = specification_of(model)
        block = facts.block
        outside = (*facts.before, *facts.after)
        keys = {reads: sum(a.width for a in block.attentions if a.keys is reads) for reads in Reads}
        return cls(
            layers=facts.depth,
            width=model.width,
            params=count_params(model).total,
            token_params=products(block.weights, Reads.rows),
            attended=keys[Reads.rows],
            gathers=len(facts.gathers),
            traffic=block.traffic,
            kv_width=keys[Reads.rows],
            caption_params=products(block.weights, Reads.captions),
            caption_attended=keys[Reads.captions],
            outside=products(outside, Reads.rows),
        )

    @classmethod
    def published(
        cls,
        layers: int,
        width: int,
        hidden: int,
        params: float,
        mlp_matrices: int = 2,
        kv_width: int = 0,
        cross: bool = True,
        causal: bool = False,
        outside: float = 0.0,
        traffic: float = PUBLISHED_TRAFFIC,
    ) -> "Network":
        """Describe a network by what papers say of it.

        hidden: of the MLP, with ``mlp_matrices`` matrices (2, or 3 where it is gated). kv_width: of
        keys and values, 0 for the width. cross: has cross-attention to captions. traffic: in units
        of the width.
        """
        D, kv = width, kv_width or width
        token_params = 2 * D * D + 2 * D * kv + (2 * D * D if cross else 0)
        return cls(
            layers=layers,
            width=D,
            params=params,
            token_params=token_params + mlp_matrices * D * hidden,
            attended=D,
            gathers=3 if cross else 2,
            traffic=traffic * D,
            kv_width=kv,
            caption_params=2 * D * D if cross else 0.0,
            caption_attended=D if cross else 0,
            outside=outside,
            causal=causal,
        )

    def linear_flops(self, tokens: float, captions: float = 0.0) -> float:
        """Return forward FLOPs of a block's matrix products over so many tokens and captions."""
        return 2 * tokens * self.token_params + 2 * captions * self.caption_params

    def attention_flops(self, tokens: float, segment: float, caption: float = 0.0) -> float:
        """Return forward FLOPs of a block's attention, in segments of equal length.

        segment: mean of squared lengths over mean of lengths; caption: tokens of one caption.
        """
        seen = segment / 2 if self.causal else segment
        return 4 * tokens * (self.attended * seen + self.caption_attended * caption)
