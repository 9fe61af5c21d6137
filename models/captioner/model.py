"""A captioner: a transformer over space-time tokens of a clip, and a decoder that writes words.

An encoder-decoder transformer (Vaswani et al. 2017) with norms first. The encoder works on clips
and images of any size side by side, as the diffusion transformer does; the decoder attends to the
tokens of its own clip.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import (
    cross_entropy,
    layer_norm,
    pad,
    scaled_dot_product_attention,
)

from models.attention import attend_segments
from models.captioner.count import CLIP_FEATURES
from models.captioner.views import FeatureStem, Stem, View
from models.captioner.vocabulary import Special
from models.config import POSITION_FEATURES, CaptionerConfig, ModelConfig
from models.dit.embed import position_features, sinusoids, token_positions
from models.dit.rope import rope_rotation, rotate
from models.pack import Ragged

FPS_UNIT = 120.0  # frames per second that map to 1 before the sinusoids

Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, N, t, E) of each block


@dataclass(frozen=True)
class Memory:
    """What the decoder attends to: each block's keys and values, padded to the longest clip.

    keys, values: per block (B, N, S, E).
    mask: (B, 1, 1, S), True on tokens, False on padding.
    summary: (B, D), the clip as a whole; it is added to every word.
    """

    keys: list[Float[Tensor, "B N S E"]]
    values: list[Float[Tensor, "B N S E"]]
    mask: Bool[Tensor, "B 1 1 S"]
    summary: Float[Tensor, "B D"]

    def repeat(self, times: int) -> "Memory":
        """Repeat every clip, for several captions of each."""
        keys, values = (
            [x.repeat_interleave(times, 0) for x in xs] for xs in (self.keys, self.values)
        )
        mask, summary = (x.repeat_interleave(times, 0) for x in (self.mask, self.summary))
        return Memory(keys, values, mask, summary)


class Attention(nn.Module):
    """Projections of multi-head attention; queries and keys are normed over the head."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.heads = (config.width // config.head_dim, config.head_dim)
        self.norm = nn.LayerNorm(config.width)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.temperature = nn.Parameter(torch.ones(self.heads[0], 1))

    def queries(self, x: Float[Tensor, "*any D"]) -> Float[Tensor, "*any N E"]:
        """Return normed queries; each head learns its temperature."""
        q = layer_norm(self.q(x).unflatten(-1, self.heads), self.heads[1:])
        return q * self.temperature

    def pairs(self, x: Float[Tensor, "*any D"]) -> tuple[Tensor, Tensor]:
        """Return normed keys and values (*any, N, E) each."""
        k, v = self.kv(x).unflatten(-1, (2, *self.heads)).unbind(-3)
        return layer_norm(k, self.heads[1:]), v


class EncoderBlock(nn.Module):
    """Self-attention within each clip and an MLP."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = build_mlp(config)

    def forward(self, x: Float[Tensor, "S D"], rotation: Tensor, segments: Ragged) -> Tensor:
        """Map the residual stream (S, D)."""
        attention, h = self.attention, self.attention.norm(x)
        k, v = attention.pairs(h)
        q, k = rotate(attention.queries(h), rotation), rotate(k, rotation)
        x = x + attention.out(attend_segments(q, k, v, segments, segments).flatten(1))
        return x + self.mlp(x)


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to the clip, and an MLP."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.cross = Attention(config)
        self.mlp = build_mlp(config)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        memory: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "B 1 1 S"],
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map the residual stream; ``past`` holds the keys and values of all earlier words."""
        h = self.attention.norm(x)
        k, v = (y.transpose(1, 2) for y in self.attention.pairs(h))  # (B, N, L, E)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        q = self.attention.queries(h).transpose(1, 2)
        seen = scaled_dot_product_attention(q, k, v, is_causal=past is None)
        x = x + self.attention.out(seen.transpose(1, 2).flatten(2))
        q = self.cross.queries(self.cross.norm(x)).transpose(1, 2)
        seen = scaled_dot_product_attention(q, *memory, attn_mask=mask)
        x = x + self.cross.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(x), (k, v)


def build_mlp(config: CaptionerConfig) -> nn.Sequential:
    """Build the normed MLP of a block."""
    width, hidden = config.width, config.mlp_ratio * config.width
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
    )


class Captioner(nn.Module):
    """Write a caption of a clip: ``remember`` the clips, then ``read`` words against them."""

    def __init__(self, config: CaptionerConfig, num_pieces: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.stem = FeatureStem(config) if config.feature_channels else Stem(config)
        self.place_in = nn.Linear(POSITION_FEATURES + CLIP_FEATURES, config.width)
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_depth))
        self.memory_norm = nn.LayerNorm(config.width)
        self.pool = nn.Sequential(
            nn.Linear(2 * config.width, config.width),
            nn.GELU(),
            nn.Linear(config.width, config.width),
        )
        self.words = nn.Embedding(num_pieces, config.width)
        self.order = nn.Embedding(config.max_caption_tokens + 1, config.width)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, num_pieces)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial weights: matrices at 1/sqrt(fan_in), each branch's output at zero."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith((".out.weight", ".mlp.3.weight")) and "stem" not in name:
                    parameter.zero_()
                elif name in ("words.weight", "order.weight"):
                    parameter.normal_(0.0, 0.5, generator=generator)
                elif parameter.ndim > 1 and not name.endswith("temperature"):
                    fan_in = parameter[0].numel()
                    parameter.normal_(0.0, fan_in**-0.5, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()

    def remember(self, views: list[View]) -> Memory:
        """Encode clips of any sizes side by side. Raises ValueError on wrong features."""
        config, device = self.config, self.head.weight.device
        tokens, positions = [], []
        for view in views:
            x, (f, h, w) = self.stem(view.pixels.to(device))
            place = token_positions(f, h, w).to(device)
            clip = sinusoids(torch.tensor([view.fps / FPS_UNIT], device=device), CLIP_FEATURES)
            features = [position_features(place, (f, h // 2, w // 2)), clip.expand(len(place), -1)]
            tokens.append(x + self.place_in(torch.cat(features, -1).to(x.dtype)))
            positions.append(place)
        segments = Ragged.of([len(x) for x in tokens], device)
        rope = ModelConfig(
            width=config.width, head_dim=config.head_dim, rope_theta=config.rope_theta
        )
        rotation = rope_rotation(rope, torch.cat(positions))
        x = torch.cat(tokens)
        for block in self.encoder:
            x = block(x, rotation, segments)
        return self._memory(self.memory_norm(x), segments.lengths)

    def _memory(self, x: Float[Tensor, "S D"], lengths: list[int]) -> Memory:
        """Project each decoder block's keys and values once for all words, and pad them."""
        longest = max(lengths)
        padded = torch.stack([pad(p, (0, 0, 0, longest - len(p))) for p in x.split(lengths)])
        count = torch.tensor(lengths, device=x.device).view(-1, 1, 1, 1)
        mask = torch.arange(longest, device=x.device) < count
        keys, values = [], []
        for block in self.decoder:
            assert isinstance(block, DecoderBlock)
            k, v = block.cross.pairs(padded)
            keys.append(k.transpose(1, 2))
            values.append(v.transpose(1, 2))
        count, kept = count.view(-1, 1), mask.view(len(lengths), longest, 1)
        mean = padded.sum(1) / count
        most = padded.masked_fill(~kept, -torch.inf).amax(1)
        return Memory(keys, values, mask, self.pool(torch.cat([mean, most], -1)))

    def read(
        self, words: Int[Tensor, "B L"], memory: Memory, cache: Cache | None = None
    ) -> tuple[Float[Tensor, "B L W"], Cache]:
        """Return the logits of the word after each of ``words``, and the cache of what was read.

        With a cache, L must be 1: the one word after those in it.
        """
        start = cache[0][0].shape[2] if cache else 0
        places = torch.arange(start, start + words.shape[1], device=words.device)
        x = self.words(words) + self.order(places) + memory.summary.unsqueeze(1)
        after: Cache = []
        for i, block in enumerate(self.decoder):
            pair = memory.keys[i], memory.values[i]
            x, kept = block(x, pair, memory.mask, cache[i] if cache else None)
            after.append(kept)
        return self.head(self.norm(x)), after


def caption_errors(
    model: Captioner, memory: Memory, captions: list[list[int]], starts: list[Special]
) -> tuple[Tensor, Tensor]:
    """Return the sum of -log p over all words and ends (nats), and their number per caption (B,).

    Captions are cut to ``max_caption_tokens``; a cut one has no end.
    """
    most = model.config.max_caption_tokens
    rows = [[*ids, int(Special.end)][:most] for ids in captions]
    longest = max(map(len, rows))
    target = torch.tensor([row + [int(Special.pad)] * (longest - len(row)) for row in rows])
    target = target.to(model.head.weight.device)
    first = torch.tensor([[int(start)] for start in starts]).to(target)
    logits, _ = model.read(torch.cat([first, target[:, :-1]], 1), memory)
    losses = cross_entropy(
        logits.flatten(0, 1).float(),
        target.flatten(),
        ignore_index=int(Special.pad),
        reduction="none",
    )
    return losses.view_as(target).sum(1), torch.tensor([len(r) for r in rows]).to(losses)
