"""The DiT of models/ as it is usually written: padded batches, masks, eager PyTorch.

The reference of ``benchmarks.train_step`` and of tests/benchmarks: same parameters under the same
names, same mathematics, so that losses and gradients must agree with ours to rounding. What
differs is how it is computed: clips are padded to the longest of their batch (B, S, D), attention
gets masks, and rotary embedding is sines, cosines and a concatenation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention, silu

from models.config import POSITION_FEATURES, ModelConfig
from models.dit.embed import sinusoids
from models.dit.model import FPS_UNIT
from models.pack import TokenPack
from models.precondition import value_spread, velocity_coefficients


@dataclass(frozen=True)
class PaddedBatch:
    """Clips side by side, each padded to the longest; names as in ``models.pack.TokenPack``.

    latent, x_0, valid: (B, S, V); positions: (B, S, 3); place: (B, S, P); t, fps: (B,).
    mask: True on tokens (B, S). caption: (B, L, text width); caption_mask: (B, L).
    has_caption: (B,); a clip without one has a mask of one token, where the null caption goes.
    """

    latent: Tensor
    x_0: Tensor
    valid: Tensor
    positions: Tensor
    place: Tensor
    t: Tensor
    fps: Tensor
    mask: Tensor
    caption: Tensor
    caption_mask: Tensor
    has_caption: Tensor


def pad(pack: TokenPack, x_0: Tensor, t: Tensor, clips: list[int] | None = None) -> PaddedBatch:
    """Pad the clips of a pack, or some of them, to the longest."""
    clips = list(range(len(pack.lengths))) if clips is None else clips
    captions = torch.split(pack.caption, pack.caption_lengths)
    caption = [
        captions[i] if len(captions[i]) else pack.caption.new_zeros(1, pack.caption.shape[1])
        for i in clips
    ]

    def padded(rows: Tensor) -> Tensor:
        parts = torch.split(rows[: pack.num_tokens], pack.lengths)
        return nn.utils.rnn.pad_sequence([parts[i] for i in clips], batch_first=True)

    return PaddedBatch(
        latent=padded(pack.latent),
        x_0=padded(x_0),
        valid=padded(pack.valid),
        positions=padded(pack.positions),
        place=padded(pack.place),
        t=t[clips],
        fps=pack.fps[clips],
        mask=_mask([pack.lengths[i] for i in clips]),
        caption=nn.utils.rnn.pad_sequence(caption, batch_first=True),
        caption_mask=_mask([len(states) for states in caption]),
        has_caption=torch.tensor([pack.caption_lengths[i] > 0 for i in clips]),
    )


def _mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate neighbouring pairs of (B, S, N, E); the angles are (B, S, 1, E / 2)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1).flatten(-2)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = layer_norm(x, x.shape[-1:], eps=1e-6)
    return normed * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class _Attention(nn.Module):
    """What self- and cross-attention share: normed queries and keys, masked attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = (config.num_heads, config.head_dim)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.temperature = nn.Parameter(torch.ones(config.num_heads))

    def _norm(self, x: Tensor) -> Tensor:
        return layer_norm(x.unflatten(-1, self.heads), self.heads[1:], eps=1e-6)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (part.transpose(1, 2) for part in (q * self.temperature.unsqueeze(-1), k, v))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(out.transpose(1, 2).flatten(2))


class _SelfAttention(_Attention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k = _rotate(self._norm(q), *rotation), _rotate(self._norm(k), *rotation)
        return self._attend(q, k, v.unflatten(-1, self.heads), mask)


class _CrossAttention(_Attention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.width, eps=1e-6, bias=False)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=False)

    def forward(self, x: Tensor, caption: Tensor, mask: Tensor) -> Tensor:
        k, v = self.kv(caption).chunk(2, dim=-1)
        q = self._norm(self.q(self.norm(x)))
        return self._attend(q, self._norm(k), v.unflatten(-1, self.heads), mask)


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_ratio * config.width
        self.offset = nn.Parameter(torch.zeros(6 * width))
        self.self_attention = _SelfAttention(config)
        self.cross_attention = _CrossAttention(config)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rotation: tuple[Tensor, Tensor],
        caption: Tensor,
        batch: PaddedBatch,
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.offset).chunk(6, dim=-1)
        attended = self.self_attention(_modulate(x, shift1, scale1), rotation, batch.mask)
        x = x + gate1.unsqueeze(1) * attended
        x = x + self.cross_attention(x, caption, batch.caption_mask)
        hidden = gelu(self.mlp[0](_modulate(x, shift2, scale2)))
        return x + gate2.unsqueeze(1) * self.mlp[2](hidden)


class PlainDiT(nn.Module):
    """Predict velocities of a padded batch; takes the state dict of ``models.dit.model.DiT``."""

    sigma: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.patch_in = nn.Linear(config.values_per_token, width)
        self.place_in = nn.Linear(POSITION_FEATURES, width, bias=False)
        self.condition = nn.Sequential(
            nn.Linear(2 * config.time_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        self.caption_in = nn.Linear(config.text_width, width)
        self.null_caption = nn.Parameter(torch.zeros(config.text_width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.values_per_token)
        self.register_buffer("sigma", value_spread(config.spread), persistent=False)

    def forward(self, batch: PaddedBatch) -> Tensor:
        """Return each value's squared velocity error (B, S, V), zero where there is no loss."""
        t = batch.t[:, None, None]
        x_t = torch.lerp(batch.x_0, batch.latent, t)
        c_in, c_skip, c_out = velocity_coefficients(t, self.sigma)
        features = self.config.time_features
        time, fps = sinusoids(batch.t, features), sinusoids(batch.fps / FPS_UNIT, features)
        condition = silu(self.condition(torch.cat([time, fps], dim=-1)))
        modulation, rotation = self.modulation(condition), self._rotation(batch.positions)
        states = torch.where(batch.has_caption[:, None, None], batch.caption, self.null_caption)
        caption = self.caption_in(states)
        x = self.patch_in(c_in * x_t) + self.place_in(batch.place)
        for block in self.blocks:
            x = block(x, modulation, rotation, caption, batch)
        shift, scale = self.head_modulation(condition).chunk(2, dim=-1)
        velocity = c_skip * x_t + c_out * self.head(_modulate(x, shift, scale))
        return ((velocity - (batch.latent - batch.x_0)) * batch.valid).square()

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = []
        for axis, pairs in enumerate(self.config.rope_pairs()):
            frequency = self.config.rope_theta ** -(torch.arange(pairs) / pairs)
            angles.append(positions[..., axis : axis + 1].float() * frequency)
        angle = torch.cat(angles, dim=-1).unsqueeze(2)  # (B, S, 1, E / 2)
        return angle.cos(), angle.sin()
