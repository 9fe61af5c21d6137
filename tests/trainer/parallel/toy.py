"""A toy architecture, whole in this file: attention and a gated MLP side by side, no captions.

It proves the seat: nothing of the rooms knows it, and runs find it by this module's name. Parallel
layers as in PaLM (Chowdhery et al. 2022, section 2), SwiGLU as in Shazeer 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

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
from models.attention import Attend, attend_segments
from models.config import POSITION_FEATURES, ModelConfig
from models.dit.blocks import SelfAttention
from models.dit.embed import sinusoids
from models.dit.modulation import Spans, modulate
from models.dit.rope import rope_rotation
from models.pack import Ragged, TokenPack
from models.precondition import Coefficients, value_spread, velocity_coefficients

OPTIONS = {"hidden": "hidden size of the gated MLP over the width; 2 where it is not given"}


@dataclass(frozen=True)
class Stream:
    """The residual stream (S, D), and shift and scale of each span (T, 2 D)."""

    x: Tensor
    condition: Tensor


class ToyBlock(nn.Module):
    """x + attention(norm x) + MLP(norm x), one norm for both."""

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        width, hidden = config.width, hidden_of(config)
        self.self_attention = SelfAttention(config, attend)
        self.up = nn.Linear(width, hidden, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width)

    def forward(
        self, x: Tensor, condition: Tensor, spans: Spans, rotation: Tensor, segments: Ragged
    ) -> Tensor:
        """Map the residual stream through the block."""
        shift, scale = condition.chunk(2, dim=-1)
        h = modulate(x, shift.contiguous(), scale.contiguous(), spans)
        attended = self.self_attention(h, rotation, segments)
        return x + attended + self.down(silu(self.gate(h)) * self.up(h))


class Toy(nn.Module):
    """Embeddings, blocks, a head."""

    sigma: Tensor
    stream: ClassVar[type[Stream]] = Stream

    def __init__(
        self,
        config: ModelConfig,
        attend: Attend = attend_segments,
        precondition: Coefficients = velocity_coefficients,
    ) -> None:
        super().__init__()
        self.config, self._coefficients = config, precondition
        self.patch_in = nn.Linear(config.values_per_token, config.width)
        self.place_in = nn.Linear(POSITION_FEATURES, config.width, bias=False)
        self.clock = nn.Linear(config.time_features, 2 * config.width)
        self.blocks = nn.ModuleList(ToyBlock(config, attend) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.values_per_token)
        self.register_buffer("sigma", value_spread(config.spread), persistent=False)

    def forward(self, pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the velocity at ``x_t``."""
        c_in, c_skip, c_out = self.precondition(pack, t)
        stream = self.run_blocks(pack, self.embed(pack, c_in * x_t, t))
        return torch.addcmul(c_skip * x_t, c_out, self.read_out(pack, stream))

    def precondition(self, pack: TokenPack, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (c_in, c_skip, c_out) of each row and value."""
        return self._coefficients(t.index_select(0, pack.span).unsqueeze(-1), self.sigma)

    def embed(self, pack: TokenPack, x: Tensor, t: Tensor) -> Stream:
        """Turn values and times into a stream."""
        dtype = next(self.parameters()).dtype
        features = sinusoids(t, self.config.time_features).to(dtype)
        tokens = self.patch_in(x.to(dtype)) + self.place_in(pack.place.to(dtype))
        return Stream(tokens, self.clock(features))

    def run_blocks(
        self, pack: TokenPack, stream: Stream, blocks: Sequence[int] | None = None
    ) -> Stream:
        """Map the stream through blocks."""
        rotation = rope_rotation(self.config, pack.positions)
        segments, spans = Ragged.of(pack.lengths, pack.segment.device), Spans.of(pack)
        x = stream.x
        for number in range(self.config.depth) if blocks is None else blocks:
            x = self.blocks[number](x, stream.condition, spans, rotation, segments)
        return replace(stream, x=x)

    def read_out(self, pack: TokenPack, stream: Stream) -> Tensor:
        """Turn the stream into the prediction."""
        return self.head(stream.x).float()

    def restore_buffers(self, device: torch.device) -> None:
        """Set sigma."""
        self.sigma = value_spread(self.config.spread).to(device)


def hidden_of(model: ModelConfig) -> int:
    """Return the hidden size of the MLP."""
    return round(model.options.get("hidden", 2) * model.width)


def specify(model: ModelConfig) -> Specification:
    """Return the facts of the toy."""
    D, V, N, hidden = model.width, model.values_per_token, model.num_heads, hidden_of(model)
    embedding: dict[str, Any] = {"role": Role.embedding}
    own = "self_attention"
    return Specification(
        before=(
            matrix("patch_in", D, V, "embedding", **embedding),
            Weight("patch_in.bias", (D,), "embedding"),
            matrix("place_in", D, POSITION_FEATURES, "embedding", **embedding),
            matrix("clock", 2 * D, model.time_features, "clock", Reads.spans, **embedding),
            Weight("clock.bias", (2 * D,), "clock"),
        ),
        block=Block(
            weights=(
                Weight("self_attention.temperature", (N,), own, initial=Initial.ones, cut=Split(0)),
                matrix("self_attention.qkv", 3 * D, D, own, cut=Split(0, groups=3)),
                matrix("self_attention.out", D, D, own, cut=Split(1)),
                matrix("up", hidden, D, "mlp", cut=Split(0)),
                matrix("gate", hidden, D, "mlp", cut=Split(0)),
                matrix("down", D, hidden, "mlp", cut=Split(1)),
                Weight("down.bias", (D,), "mlp"),
            ),
            attentions=(Attention("self_attention", Reads.rows, D),),
            kept=Kept(rows=9 * D + 4 * hidden, exchanged=3 * D, statistics=2 + 5 * N),
            selective=Kept(rows=6 * D + 2 * hidden, exchanged=4 * D, summed=2 * D, statistics=N),
            working=3.5 * D,
            gathered_working=1.5 * D,
            traffic=40.0 * D,
        ),
        depth=model.depth,
        after=(
            matrix("head", V, D, "head", role=Role.head, initial=Initial.zeros),
            Weight("head.bias", (V,), "head"),
        ),
        stream=(Field("x", Reads.rows, D), Field("condition", Reads.spans, 2 * D)),
        edge=Edge(rows=D, gathered=0, values=6 * V),
        rotation=model.head_dim // 2,
    )


ARCHITECTURE = Architecture(specify, Toy, OPTIONS)
