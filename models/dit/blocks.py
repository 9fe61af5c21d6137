"""One transformer block: modulated self-attention and MLP, cross-attention to the caption."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from models.attention import Attend
from models.config import ModelConfig
from models.dit.modulation import Spans, add_gated, modulate
from models.dit.rope import rotate
from models.pack import Ragged, Twins
from models.rows import norm_rows


class SelfAttention(nn.Module):
    """Multi-head attention within each segment, normed queries and keys, rotary positions.

    Queries and keys are layer-normed over the head (Dehghani et al. 2023); torch's CPU kernel for
    it is faster than that of the RMS norm (docs/decisions/004). Each head learns its temperature.
    """

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attend = config.num_heads, config.head_dim, attend
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.temperature = nn.Parameter(torch.ones(config.num_heads))

    def forward(self, x: Tensor, rotation: Tensor, segments: Ragged) -> Tensor:
        """Attend over (S, D) within segments."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))
        qk, v = qkv.split([2, 1], dim=1)
        qk = rotate(layer_norm(qk, (self.head_dim,), eps=1e-6), rotation.unsqueeze(1))
        q, k = qk.unbind(1)  # (S, N, E)
        q = q * self.temperature.unsqueeze(-1)
        return self.out(self.attend(q, k, v.squeeze(1), segments, segments).flatten(1))


class CrossAttention(nn.Module):
    """Multi-head attention from video tokens to the caption of their own segment."""

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attend = config.num_heads, config.head_dim, attend
        self.norm = nn.LayerNorm(config.width, eps=1e-6, bias=False)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.temperature = nn.Parameter(torch.ones(config.num_heads))

    def forward(
        self, x: Tensor, caption: Tensor, segments: Ragged, caption_segments: Ragged
    ) -> Tensor:
        """Attend from (S, D) to (K, D), segment by segment."""
        if segments.lone:
            return self._with_lone(x, caption, segments, caption_segments)
        q = self.q(self._normed(x)).unflatten(-1, (self.num_heads, self.head_dim))
        q = layer_norm(q, (self.head_dim,), eps=1e-6)
        kv = self.kv(caption).unflatten(-1, (2, self.num_heads, self.head_dim))
        # On the keys, which are far fewer than the queries; the product is the same.
        k = layer_norm(kv[:, 0], (self.head_dim,), eps=1e-6) * self.temperature.unsqueeze(-1)
        return self.out(self.attend(q, k, kv[:, 1], segments, caption_segments).flatten(1))

    def _with_lone(
        self, x: Tensor, caption: Tensor, segments: Ragged, caption_segments: Ragged
    ) -> Tensor:
        """Attend, where all that the last segments see is one token: they get its value."""
        others, tokens = segments.others, caption_segments.others
        value = self.kv(caption[tokens.total :]).chunk(2, dim=-1)[1]  # (lone, D)
        lone = self.out(value).index_select(0, segments.lone_rows)
        if not others.total:
            return lone
        heard = self(x[: others.total], caption[: tokens.total], others, tokens)
        return torch.cat([heard, lone])

    def _normed(self, x: Tensor) -> Tensor:
        """Norm rows; the CPU's fused kernel rounds the weight's gradient to bf16 row by row."""
        if x.is_cuda or x.dtype == torch.float32:
            normed: Tensor = self.norm(x)
            return normed
        return layer_norm(x, x.shape[-1:], eps=1e-6) * self.norm.weight


class Block(nn.Module):
    """adaLN-zero block; its modulation is the shared projection plus an offset of its own.

    With ``model.options.base_depth`` its residual branches count base_depth / depth: their sum and
    its changes then have one size at every depth (Dey et al. 2025, CompleteP, table 1, alpha = 1).
    """

    def __init__(self, config: ModelConfig, attend: Attend) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.norm_rows = norm_rows  # a kernel may take its place (models/kernels.py)
        self.share = config.options.get("base_depth", config.depth) / config.depth
        self.offset = nn.Parameter(torch.zeros(6 * width))
        self.self_attention = SelfAttention(config, attend)
        self.cross_attention = CrossAttention(config, attend)
        # The exact GELU: on CPU its kernel is faster than the tanh approximation's (decision 004).
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        x: Float[Tensor, "S D"],
        modulation: Float[Tensor, "T 6*D"],
        spans: Spans,
        rotation: Tensor,
        caption: Float[Tensor, "K D"],
        segments: Ragged,
        caption_segments: Ragged,
        twins: Twins | None = None,
    ) -> Float[Tensor, "S D"]:
        """Map the residual stream through the block; rows of twins attend once for both."""
        parts = (modulation + self.offset).unflatten(-1, (6, -1)).transpose(0, 1).contiguous()
        shift1, scale1, gate1, shift2, scale2, gate2 = parts.unbind()  # (T, D) each
        modulated = modulate(x, shift1, scale1, spans, self.norm_rows)
        if twins is None:
            attended = self.self_attention(modulated, rotation, segments)
        else:
            first, rows = twins.first, twins.first.total
            once = self.self_attention(modulated[:rows], rotation[:rows], first)
            attended = torch.cat([once, once.index_select(0, twins.rows)])
        x = add_gated(x, self.share * gate1, attended, spans)
        crossed = self.cross_attention(x, caption, segments, caption_segments)
        x = torch.add(x, crossed, alpha=self.share)
        changed = self.mlp(modulate(x, shift2, scale2, spans, self.norm_rows))
        return add_gated(x, self.share * gate2, changed, spans)
