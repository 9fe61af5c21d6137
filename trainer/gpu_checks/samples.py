"""What the checks compute with: random packs, weights none of which is zero, a latent data set."""

import random
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from data.dataset.shards import ShardWriter, write_manifest
from models.architecture import Initial, specification_of
from models.attention import Attend, attend_segments
from models.config import ModelConfig
from models.count import count_flops
from models.dit.embed import position_features, token_positions
from models.network import build_network
from models.pack import TokenPack
from models.precondition import Coefficients, velocity_coefficients
from trainer.diffusion.micro_batch import MicroBatch, own_noise
from trainer.parallel.mesh import Mesh
from trainer.parallel.rows import own_rows, padded_rows
from trainer.parallel.stage import Values

TINY = ModelConfig(width=64, depth=2, text_width=32)
SMALL = ModelConfig(width=128, depth=4, head_dim=32, text_width=32)

Grid = tuple[int, int, int]


def draw_grids(budget: int, seed: int, largest: int = 700) -> list[Grid]:
    """Draw (frames, rows, columns) of clips and images until the token budget is nearly full."""
    draw, grids, left = random.Random(seed), [], budget
    side = int((largest / 3) ** 0.5)
    while left >= 64:
        grid = (draw.choice((1, 1, 2, 3, 5)), draw.randint(3, side), draw.randint(3, side))
        tokens = grid[0] * grid[1] * grid[2]
        if tokens <= min(left, largest):
            grids.append(grid)
            left -= tokens
    return sorted(grids, key=lambda grid: grid[0] * grid[1] * grid[2])


def build_batch(
    model: ModelConfig, budget: int, seed: int, mesh: Mesh, largest: int = 700
) -> MicroBatch:
    """Fill a pack of ``budget`` rows with random clips, and keep this rank's rows of it."""
    draw = torch.Generator().manual_seed(seed)
    grids = draw_grids(budget, seed, largest)
    lengths = [f * h * w for f, h, w in grids]
    captions = [(3 * i + seed) % 17 for i in range(len(grids))]  # some have none
    positions = [token_positions(f, 2 * h, 2 * w) for f, h, w in grids]
    places = [position_features(p, g) for p, g in zip(positions, grids, strict=True)]
    rows, tokens, values = padded_rows(budget, mesh.layout), sum(lengths), model.values_per_token
    extra = rows - tokens
    segment = torch.arange(len(grids)).repeat_interleave(torch.tensor(lengths))
    pack = TokenPack(
        latent=_grow(torch.randn(tokens, values, generator=draw), extra),
        valid=_grow(torch.rand(tokens, values, generator=draw) > 0.05, extra),
        positions=_grow(torch.cat(positions), extra),
        place=_grow(torch.cat(places), extra),
        segment=torch.cat([segment, segment[-1:].expand(extra)]),
        lengths=lengths,
        fps=torch.tensor([12.0 if f > 1 else 0.0 for f, _, _ in grids]),
        caption=torch.randn(sum(captions), model.text_width, generator=draw),
        caption_lengths=captions,
    )
    noise = torch.randn(tokens, values, generator=draw)
    return MicroBatch(
        pack=own_rows(pack, mesh.layout, mesh.rank),
        x_0=own_noise([noise], rows, mesh),
        t=torch.rand(len(grids), generator=draw),
        keys=[f"{seed}-{i}" for i in range(len(grids))],
        tokens=tokens,
        values=int(pack.valid.sum()),
        flops=count_flops(model, lengths, [max(n, 1) for n in captions]).total,
    ).to(mesh.device)


def _grow(tensor: Tensor, extra: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(extra, *tensor.shape[1:])])


def random_values(model: ModelConfig, device: str = "cpu") -> Values:
    """Return weights as an engine takes them: random, none zero, so that every gradient flows."""
    return partial(_draw_values, model, device)


def _draw_values(
    model: ModelConfig, device: str, names: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    draw = torch.Generator(device).manual_seed(0)
    for name, weight in specification_of(model).weights.items():
        spread = weight.shape[1] ** -0.5 if len(weight.shape) == 2 else 0.1
        value = torch.randn(weight.shape, generator=draw, device=device) * spread
        yield name, value + (weight.initial is Initial.ones)


def build_model(
    model: ModelConfig,
    attend: Attend = attend_segments,
    precondition: Coefficients = velocity_coefficients,
) -> Any:
    """Return a network on CPU with the weights of :func:`random_values`."""
    network = build_network(model, attend, precondition)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in _draw_values(model, "cpu", parameters.keys()):
            parameters[name].copy_(value)
    return network


def write_latents(root: Path, samples: int = 24) -> None:
    """Write a latent data set with the splits that a run's defaults name."""
    sizes = [(17, 64, 96), (9, 96, 64), (5, 64, 64), (1, 128, 96)]
    for split, count in (("train", samples), ("val_worlds", 6), ("val_real", 6)):
        with ShardWriter(root, split, 1_000_000) as writer:
            for i in range(count):
                frames, height, width = sizes[i % len(sizes)]
                draw = torch.Generator().manual_seed(1000 * len(split) + i)
                shape = (6, 1 + (frames - 1) // 4, height // 8, width // 8)
                latent, caption = (
                    torch.randn(s, generator=draw).half() for s in (shape, (3 + i % 4, 32))
                )
                meta = {
                    "key": f"{split}-{i:04d}",
                    "media": "latent",
                    "num_frames": frames,
                    "height": height,
                    "width": width,
                    "fps": 0.0 if frames == 1 else 12.0,
                    "duration_seconds": 0.0 if frames == 1 else frames / 12.0,
                    "caption": f"noise number {i}",
                    "source": f"noise/{split}-{i}",
                    "licence": "CC0",
                    "rendered": True,
                    "original": {},
                    "caption_tokens": len(caption),
                }
                payload = save({"latent": latent, "caption": caption})
                writer.write(meta, payload, "safetensors")
    write_manifest(root, {"name": "noise"})
