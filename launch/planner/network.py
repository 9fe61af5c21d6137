"""A transformer as a planner sees it: what decides time, for our DiT and for published ones."""

from dataclasses import dataclass

from models.config import POSITION_FEATURES, ModelConfig
from models.count import count_params

# Values that elementwise kernels and matrix products read and write in a forward pass of a block,
# for each token, in units of the width (counted over models/dit/blocks.py as it runs on CUDA):
# norms and modulation 16, normed and rotated queries and keys 16, cross-attention's norms and sum
# 7, gates and sums 10, GELU 8, inputs and outputs of the six matrix products 20.
DIT_TRAFFIC = 77.0


@dataclass(frozen=True)
class Network:
    """A stack of equal blocks.

    hidden: of the MLP, with ``mlp_matrices`` matrices (2, or 3 where it is gated). kv_width: of
    keys and values. cross: has cross-attention to ``captions``. causal: a token sees earlier
    ones only. params: all of them. outside: those outside of blocks that every token is
    multiplied with. traffic: see DIT_TRAFFIC.
    """

    layers: int
    width: int
    hidden: int
    params: float
    mlp_matrices: int = 2
    kv_width: int = 0
    cross: bool = True
    causal: bool = False
    outside: float = 0.0
    traffic: float = DIT_TRAFFIC

    @classmethod
    def of(cls, model: ModelConfig) -> "Network":
        """Describe ``models.dit.model.DiT``."""
        D, V = model.width, model.values_per_token
        return cls(
            layers=model.depth,
            width=D,
            hidden=model.mlp_ratio * D,
            params=count_params(model).total,
            outside=(2 * V + POSITION_FEATURES) * D,
        )

    @property
    def token_params(self) -> float:
        """Parameters of a block's matrices that every token is multiplied with."""
        D, kv = self.width, self.kv_width or self.width
        attention = 2 * D * D + 2 * D * kv
        cross = 2 * D * D if self.cross else 0
        return attention + cross + self.mlp_matrices * D * self.hidden

    def linear_flops(self, tokens: float, captions: float = 0.0) -> float:
        """Return forward FLOPs of a block's matrix products over so many tokens and captions."""
        keys = 2 * captions * 2 * self.width**2 if self.cross else 0.0
        return 2 * tokens * self.token_params + keys

    def attention_flops(self, tokens: float, segment: float, caption: float = 0.0) -> float:
        """Return forward FLOPs of a block's attention, in segments of equal length.

        segment: mean of squared lengths over mean of lengths; caption: tokens of one caption.
        """
        seen = segment / 2 if self.causal else segment
        return 4 * tokens * self.width * (seen + (caption if self.cross else 0.0))
