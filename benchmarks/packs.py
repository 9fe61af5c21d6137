"""Packs of random clips in realistic sizes, and our training step over them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.count import count_flops
from models.dit.embed import position_features, token_positions
from models.dit.model import DiT
from models.objectives.flow import flow_errors
from models.pack import TokenPack

SHAPES = (144, 81), (81, 144), (120, 90), (90, 120), (104, 104)  # width and height, scaled below
SHAPE_WEIGHTS = 50, 20, 12, 10, 8  # the mixture of aspect ratios of docs/log.md's packing study
SMALLEST, LARGEST = 16, 700  # tokens of a clip

Grid = tuple[int, int, int]
Work = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """A pack with its noise, times and the latent grid of each clip."""

    pack: TokenPack
    x_0: Tensor
    t: Tensor
    grids: list[Grid]


def mixture(budget: int, seed: int) -> list[tuple[Grid, int]]:
    """Draw clips (grid, caption tokens) that fill a pack: 60 % videos, many sizes and shapes."""
    draw = random.Random(seed)
    clips: list[tuple[Grid, int]] = []
    left = budget
    while left >= SMALLEST:
        width, height = draw.choices(SHAPES, SHAPE_WEIGHTS)[0]
        scale = draw.uniform(0.03, 0.1)
        frames = draw.randint(2, 9) if draw.random() < 0.6 else 1
        grid = (frames, max(2, round(height * scale)), max(2, round(width * scale)))
        size = grid[0] * grid[1] * grid[2]
        if SMALLEST <= size <= min(LARGEST, left):
            clips.append((grid, 0 if draw.random() < 0.1 else draw.randint(8, 48)))
            left -= size
        elif left < 100:
            break
    return sorted(clips, key=lambda clip: clip[0][0] * clip[0][1] * clip[0][2])


def build_sample(model: ModelConfig, clips: list[tuple[Grid, int]], seed: int = 0) -> Sample:
    """Fill clips with random latents, noise, times and captions."""
    random_numbers = torch.Generator().manual_seed(seed)
    grids, captions = [grid for grid, _ in clips], [length for _, length in clips]
    lengths = [f * h * w for f, h, w in grids]
    positions = [token_positions(f, 2 * h, 2 * w) for f, h, w in grids]
    shape = (sum(lengths), model.values_per_token)
    pack = TokenPack(
        latent=torch.randn(shape, generator=random_numbers),
        valid=torch.ones(shape, dtype=torch.bool),
        positions=torch.cat(positions),
        place=torch.cat([position_features(p, g) for p, g in zip(positions, grids, strict=True)]),
        segment=torch.arange(len(clips)).repeat_interleave(torch.tensor(lengths)),
        lengths=lengths,
        fps=torch.tensor([24.0 if f > 1 else 0.0 for f, _, _ in grids]),
        caption=torch.randn(sum(captions), model.text_width, generator=random_numbers),
        caption_lengths=captions,
    )
    x_0 = torch.randn(shape, generator=random_numbers)
    return Sample(pack, x_0, torch.rand(len(clips), generator=random_numbers), grids)


def build_model(config: ModelConfig) -> DiT:
    """Return a DiT none of whose parameters is zero, so that every gradient flows."""
    model, generator = DiT(config), torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def our_loss(model: Callable[[TokenPack, Tensor, Tensor], Tensor], sample: Sample) -> Tensor:
    """Return the mean squared velocity error of a pack."""
    errors = flow_errors(model, sample.pack, sample.x_0, sample.t)
    return errors.sum() / sample.pack.valid.sum()


def training_step(model: nn.Module, losses: list[Callable[[], Tensor]]) -> Work:
    """Return a step: backward of each loss in turn, then AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        for loss in losses:
            loss().backward()
        optimizer.step()

    return step


def our_step(model: DiT, samples: list[Sample]) -> Work:
    """Return our step: every pack is a micro-batch."""
    return training_step(model, [partial(our_loss, model, sample) for sample in samples])


def flops_of(config: ModelConfig, samples: list[Sample]) -> int:
    """Return the model FLOPs of a step over samples."""
    counts = (
        count_flops(config, s.pack.lengths, [max(n, 1) for n in s.pack.caption_lengths])
        for s in samples
    )
    return sum(found.total for found in counts)
