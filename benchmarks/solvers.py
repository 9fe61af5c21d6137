"""How far solvers end from the exact flow, by how often they look: a tiny network, trained here.

usage: python -m benchmarks.solvers [--steps 600] [--shift 1.0]

The network learns blobs of three colours that drift (a minute of processor time). Six clips are
then drawn with guidance 2 by each method, and compared with 100 steps of Heun's: root mean square
of the latents' differences. The bar: multistep reaches Heun's error with at most 60 % of its looks.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from models.config import ModelConfig
from models.dit.embed import patchify, position_features, token_positions
from models.network import build_network
from models.objective import Method
from models.objectives.flow import flow_errors, sampler_times, training_times
from models.pack import TokenPack
from models.sampling import METHODS, Guidance, Order, draw

FRAMES, SIDE, COLOURS = 4, 8, 3
CLIPS, BATCH, RATE = 6, 16, 4e-3
STEPS = {
    Method.euler: (15, 31),
    Method.heun: (4, 6, 8, 12, 16),
    Method.multistep: (7, 9, 12, 18, 24),
}


def blobs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return latents (B, 6, f, h, w) of drifting blobs, and their colours (B,)."""
    start = torch.rand(count, 2, generator=generator) * 0.6 + 0.2
    speed = (torch.rand(count, 2, generator=generator) - 0.5) * 0.2
    frame, side = torch.arange(FRAMES).view(1, -1, 1, 1), torch.linspace(0, 1, SIDE)
    place = start[..., None, None, None] + speed[..., None, None, None] * frame[:, None]
    rows, columns = side.view(-1, 1) - place[:, 0], side - place[:, 1]
    blob = torch.exp(-30 * (rows**2 + columns**2))
    colour = torch.randint(0, COLOURS, (count,), generator=generator)
    latent = torch.zeros(count, 6, FRAMES, SIDE, SIDE)
    latent[:, 0] = blob * 2 - 0.3
    latent[torch.arange(count), 1 + colour] = blob * 1.5
    return latent, colour


def pack_of(latents: Tensor, colours: Tensor, dropped: Tensor | None = None) -> TokenPack:
    """Return a pack of clips whose captions name their colours, but for those dropped."""
    count = len(latents)
    tokens = torch.cat([patchify(latent) for latent in latents])
    positions = token_positions(FRAMES, SIDE, SIDE)
    place = position_features(positions, (5, SIDE // 2, SIDE // 2))
    kept = torch.ones(count, dtype=torch.bool) if dropped is None else ~dropped
    return TokenPack(
        latent=tokens,
        valid=torch.ones_like(tokens, dtype=torch.bool),
        positions=positions.repeat(count, 1),
        place=place.repeat(count, 1),
        segment=torch.arange(count).repeat_interleave(len(tokens) // count),
        lengths=[len(tokens) // count] * count,
        fps=torch.full((count,), 12.0),
        caption=torch.eye(COLOURS, 8)[colours[kept]],
        caption_lengths=kept.long().tolist(),
    )


def trained(steps: int) -> torch.nn.Module:
    """Return a network that has learned blobs."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(width=64, depth=3, text_width=8, spread=[0.5, 0.3, 0.3, 0.3, 0.1, 0.1])
    network = build_network(config)
    network.reset_parameters(generator)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0
    )
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 30) * (1 - step / steps)
        latents, colours = blobs(BATCH, generator)
        pack = pack_of(latents, colours, torch.rand(BATCH, generator=generator) < 0.15)
        noise = torch.randn(pack.latent.shape, generator=generator)
        normal = torch.randn(BATCH, generator=generator) * 1.3 + 0.5
        t = training_times(normal, torch.full((BATCH,), 64.0), 512.0)
        optimizer.zero_grad()
        flow_errors(network, pack, noise, t).mean().div(24).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network.requires_grad_(False)


def drawn(network: torch.nn.Module, method: Method, times: list[float]) -> Tensor:
    """Return the rows of all clips, drawn together."""
    latents, colours = blobs(CLIPS, torch.Generator().manual_seed(1))
    noise = torch.randn(CLIPS, 64, 24, generator=torch.Generator().manual_seed(5))

    def orders() -> Iterator[Order]:
        for latent, colour, x in zip(latents, colours, noise, strict=True):
            pack = pack_of(latent[None], colour[None])
            free = pack_of(latent[None], colour[None], torch.tensor([True]))
            yield Order(METHODS[method](x, times), pack, free, Guidance(2.0))

    found = dict(draw(network, list(orders()), 100_000))
    return torch.cat([found[n] for n in range(CLIPS)])


def main() -> None:
    """Train, and print a row for each method and number of looks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--shift", type=float, default=1.0, help="of the sampler's times")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = trained(given.steps)
    exact = drawn(network, Method.heun, sampler_times(100, 1.0))
    print(f"spread of what is drawn {exact.std():.3f}\n{'method':<12}{'looks':>6}{'error':>9}")
    for method, counts in STEPS.items():
        for steps in counts:
            end = drawn(network, method, sampler_times(steps, given.shift))
            looks = 2 * steps - 1 if method is Method.heun else steps
            error = (end - exact).square().mean().sqrt().item()
            print(f"{method.value:<12}{looks:>6}{error:>9.4f}", flush=True)


if __name__ == "__main__":
    main()
