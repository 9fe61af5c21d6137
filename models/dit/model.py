"""The diffusion transformer over packs of native-resolution clips and images.

DiT (Peebles and Xie 2023) with one shared modulation projection and per-block offsets
(PixArt-alpha, Chen et al. 2023), normed queries and keys, and rotary positions on three axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.attention import Attend, attend_segments
from models.config import POSITION_FEATURES, ModelConfig
from models.dit.blocks import Block
from models.dit.embed import sinusoids
from models.dit.modulation import Spans, modulate
from models.dit.rope import rope_rotation
from models.network import initial_values
from models.pack import Ragged, TokenPack, Twins
from models.precondition import Coefficients, value_spread, velocity_coefficients
from models.rows import norm_rows

FPS_UNIT = 120.0  # frames per second that map to 1 before the sinusoids


@dataclass(frozen=True)
class Stream:
    """What flows through the blocks; a pipeline stage hands all of it to the next.

    x: the residual stream. condition: embedded time and frame rate of each span.
    modulation: the shared projection of it. caption: caption tokens of all segments.
    """

    x: Float[Tensor, "S D"]
    condition: Float[Tensor, "T D"]
    modulation: Float[Tensor, "T 6*D"]
    caption: Float[Tensor, "K D"]


class DiT(nn.Module):
    """Predict the velocity x_1 - x_0 of every token of a pack."""

    sigma: Tensor

    stream: ClassVar[type[Stream]] = Stream

    def __init__(
        self,
        config: ModelConfig,
        attend: Attend = attend_segments,
        precondition: Coefficients = velocity_coefficients,
    ) -> None:
        super().__init__()
        config.check()
        self.config, self._coefficients = config, precondition
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
        self.norm_rows = norm_rows
        self.head_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.values_per_token)
        self.register_buffer("sigma", value_spread(config.spread), persistent=False)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial weights, see ``models.network.initial_values``."""
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in initial_values(self.config, generator):
                parameters[name].copy_(value)

    def forward(
        self, pack: TokenPack, x_t: Float[Tensor, "S V"], t: Float[Tensor, " T"]
    ) -> Float[Tensor, "S V"]:
        """Predict the velocity at ``x_t``; ``t`` in [0, 1] is each span's time, 1 is data."""
        c_in, c_skip, c_out = self.precondition(pack, t)
        stream = self.run_blocks(pack, self.embed(pack, c_in * x_t, t))
        return torch.addcmul(c_skip * x_t, c_out, self.read_out(pack, stream))

    @property
    def dtype(self) -> torch.dtype:
        """Arithmetic of the network; preconditioning and what it returns are always fp32."""
        return next(self.parameters()).dtype

    def precondition(self, pack: TokenPack, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (c_in, c_skip, c_out) of each row and value, see ``models.precondition``."""
        # Worked out once a span, since a span has one time.
        c_in, c_skip, c_out = (
            part.index_select(0, pack.span)
            for part in self._coefficients(t.unsqueeze(-1), self.sigma)  # (T, V) each
        )
        return c_in, c_skip, c_out

    def restore_buffers(self, device: torch.device) -> None:
        """Set sigma, which stays fp32 whatever the parameters are."""
        self.sigma = value_spread(self.config.spread).to(device)

    def embed(self, pack: TokenPack, x: Float[Tensor, "S V"], t: Float[Tensor, " T"]) -> Stream:
        """Turn preconditioned values, times and captions into what the blocks work on."""
        time = sinusoids(t, self.config.time_features)
        fps = sinusoids(pack.of_spans(pack.fps) / FPS_UNIT, self.config.time_features)
        features = torch.cat([time, fps], dim=-1).to(self.dtype)
        condition = nn.functional.silu(self.condition(features))  # (T, D)
        return Stream(
            x=self.patch_in(x.to(self.dtype)) + self.place_in(pack.place.to(self.dtype)),  # (S, D)
            condition=condition,
            modulation=self.modulation(condition),  # (T, 6 D)
            caption=self._captions(pack),
        )

    def run_blocks(
        self, pack: TokenPack, stream: Stream, blocks: Sequence[int] | None = None
    ) -> Stream:
        """Map the residual stream through all blocks, or those of the given numbers."""
        rotation = rope_rotation(self.config, pack.positions, pack.periods)
        device, tokens = pack.segment.device, [max(n, 1) for n in pack.caption_lengths]
        segments = Ragged.of(pack.lengths, device, pack.lone)
        captions = Ragged.of(tokens, device, pack.lone)
        spans = Spans.of(pack)
        twins = {"twins": Twins.of(pack.lengths, pack.twins, device)} if pack.twins else {}
        # In fp32, so that the gradients of all blocks are added up in it.
        x, modulation, caption = stream.x, stream.modulation.float(), stream.caption
        for number in range(self.config.depth) if blocks is None else blocks:
            block = self.blocks[number]
            # Only the first block has not yet read a caption where it attends to itself.
            more = twins if number == 0 else {}
            x = block(x, modulation, spans, rotation, caption, segments, captions, **more)
        return replace(stream, x=x)

    def read_out(self, pack: TokenPack, stream: Stream) -> Float[Tensor, "S V"]:
        """Turn the residual stream into the network's prediction."""
        shift, scale = self.head_modulation(stream.condition).float().chunk(2, dim=-1)  # (T, D)
        normed = modulate(stream.x, shift, scale, Spans.of(pack), self.norm_rows)
        return self.head(normed).float()

    def _captions(self, pack: TokenPack) -> Float[Tensor, "K D"]:
        """Project caption states; a segment without one gets the learned null caption.

        Padding comes last, where no segment looks.
        """
        null, lengths = self.null_caption.unsqueeze(0), pack.caption_lengths
        states = pack.caption.to(null.dtype)
        *parts, padding = torch.split(states, [*lengths, len(states) - sum(lengths)])
        parts = [part if len(part) else null for part in parts]
        # The empty slice gives the null caption a gradient, of zeros, where nobody uses it: ZeRO
        # reduces what arrives, so all ranks must have gradients of the same parameters.
        return self.caption_in(torch.cat([*parts, padding, null[:0]]))
