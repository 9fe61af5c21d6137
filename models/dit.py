"""The diffusion transformer over packs of native-resolution clips and images.

DiT (Peebles and Xie 2023) with one shared modulation projection and per-block offsets
(PixArt-alpha, Chen et al. 2023), normed queries and keys, and rotary positions on three axes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.attention import Attend, attend_segments
from models.blocks import Block, modulate
from models.config import ModelConfig
from models.count import POSITION_FEATURES
from models.embed import sinusoids
from models.pack import TokenPack
from models.precondition import coefficients, value_spread
from models.roles import Role, role_of
from models.rope import rope_rotation

FPS_UNIT = 120.0  # frames per second that map to 1 before the sinusoids


class DiT(nn.Module):
    """Predict the velocity x_1 - x_0 of every token of a pack."""

    sigma: Tensor

    def __init__(self, config: ModelConfig, attend: Attend = attend_segments) -> None:
        super().__init__()
        config.check()
        self.config = config
        width = config.width
        self.patch_in = nn.Linear(config.values_per_token, width)
        self.place_in = nn.Linear(POSITION_FEATURES, width, bias=False)
        self.condition = nn.Sequential(
            nn.Linear(2 * config.time_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        self.caption_in = nn.Linear(config.text_width, width)
        self.null_caption = nn.Parameter(torch.zeros(config.text_width))
        self.blocks = nn.ModuleList(Block(config, attend) for _ in range(config.depth))
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.values_per_token)
        self.register_buffer("sigma", value_spread(config.spread), persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise by role: matrices at 1/sqrt(fan_in), output layers and modulation at zero.

        The gates of the residual branches start at one, not at zero as in adaLN-zero: with a zero
        head the output is zero all the same, and short runs learn faster (decision 004).
        """
        zero = ("modulation.weight", "head_modulation.", "head.")
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                role = role_of(name, parameter)
                if name.startswith(zero) or name.endswith("cross_attention.out.weight"):
                    parameter.zero_()
                elif role in (Role.matrix, Role.embedding):
                    parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
                elif name == "modulation.bias":
                    parameter.copy_(
                        torch.tensor([0.0, 0, 1, 0, 0, 1]).repeat_interleave(self.config.width)
                    )
                elif name.endswith(("norm.weight", "temperature")):
                    parameter.fill_(1.0)
                elif name == "null_caption":
                    parameter.normal_(0.0, 1.0, generator=generator)
                else:
                    parameter.zero_()

    def forward(
        self, pack: TokenPack, x_t: Float[Tensor, "S V"], t: Float[Tensor, " M"]
    ) -> Float[Tensor, "S V"]:
        """Predict the velocity at ``x_t``; ``t`` in [0, 1] is each segment's time, 1 is data."""
        clock = t.index_select(0, pack.segment).unsqueeze(-1)  # (S, 1)
        c_in, c_skip, c_out = coefficients(clock, self.sigma)
        return torch.addcmul(c_skip * x_t, c_out, self._network(pack, c_in * x_t, t))

    def _network(self, pack: TokenPack, x: Tensor, t: Tensor) -> Tensor:
        time = sinusoids(t, self.config.time_features)
        fps = sinusoids(pack.fps / FPS_UNIT, self.config.time_features)
        condition = nn.functional.silu(self.condition(torch.cat([time, fps], dim=-1)))  # (M, D)
        modulation = self.modulation(condition)  # (M, 6 D)
        rotation = rope_rotation(self.config, pack.positions)
        caption, caption_lengths = self._captions(pack)
        x = self.patch_in(x) + self.place_in(pack.place)  # (S, D)
        for block in self.blocks:
            x = block(x, modulation, pack.segment, rotation, caption, pack.lengths, caption_lengths)
        per_token = self.head_modulation(condition).index_select(0, pack.segment)
        shift, scale = per_token.chunk(2, dim=-1)
        return self.head(modulate(x, shift, scale))

    def _captions(self, pack: TokenPack) -> tuple[Tensor, list[int]]:
        """Project caption states to (K, D); a segment without one gets the learned null caption."""
        null = self.null_caption.unsqueeze(0)
        parts = torch.split(pack.caption, pack.caption_lengths)
        parts = tuple(part if len(part) else null for part in parts)
        # The empty slice gives the null caption a gradient, of zeros, where nobody uses it: ZeRO
        # reduces what arrives, so all ranks must have gradients of the same parameters.
        return self.caption_in(torch.cat([*parts, null[:0]])), [len(part) for part in parts]
