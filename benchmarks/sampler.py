"""What drawing costs: guidance, company, and a pipeline of diffusers, as ratios taken in turns.

usage: python -m benchmarks.sampler [--rounds N]

Processor time of one thread, untrained networks: what they draw is noise, what it costs is not.
Every pair is measured in turns within one run, and its ratio is the median of the rounds'.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import quantiles

import torch

from models.config import ModelConfig
from models.dit.embed import patchify, position_features, token_positions
from models.network import build_network
from models.objective import Method, Route
from models.objectives.flow import Flow
from models.pack import TokenPack
from models.sampling import Guidance, Order, draw

WIDTH, DEPTH, HEAD, TEXT, CAPTION = 96, 4, 24, 384, 16
STEPS = 4
# Latent sizes (f, h, w) of requests: clips and images of many shapes, as people ask for them.
MIXED = [(5, 8, 12), (1, 16, 16), (3, 12, 8), (5, 8, 8), (1, 8, 16), (2, 10, 10), (1, 8, 8)] * 2
CLIP = (5, 16, 16)
BARS = {"guidance": "at most 1.9", "packed": "at least 1.5", "diffusers": "at least 1.2"}


def clip_pack(size: tuple[int, int, int], captions: int = CAPTION) -> TokenPack:
    """Return one clip as a pack of its own, noise in the place of its caption."""
    f, h, w = size
    rows = f * h * w // 4
    positions = token_positions(f, h, w)
    return TokenPack(
        latent=patchify(torch.zeros(6, f, h, w)),
        valid=torch.ones(rows, 24, dtype=torch.bool),
        positions=positions,
        place=position_features(positions, (5, h // 2, w // 2)),
        segment=torch.zeros(rows, dtype=torch.long),
        lengths=[rows],
        fps=torch.tensor([12.0]),
        caption=torch.randn(captions, TEXT),
        caption_lengths=[captions],
    )


def order_of(size: tuple[int, int, int], guidance: float) -> Order:
    """Return an order of Euler steps."""
    pack = clip_pack(size)
    walk = Flow().walk(torch.randn_like(pack.latent), pack.num_tokens, Route(Method.euler, STEPS))
    against = clip_pack(size, 0) if guidance != 1 else None
    return Order(walk, pack, against, Guidance(guidance))


def wan_pipeline() -> Callable[[], object] | None:
    """Return a draw of the clip by diffusers' pipeline for Wan, its transformer of our size."""
    if find_spec("diffusers") is None:
        print("diffusers is not installed: its row is left out.", file=sys.stderr)
        return None
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        num_attention_heads=WIDTH // HEAD,
        attention_head_dim=HEAD,
        in_channels=6,
        out_channels=6,
        text_dim=TEXT,
        freq_dim=64,
        ffn_dim=4 * WIDTH,
        num_layers=DEPTH,
    ).requires_grad_(False)
    pipeline = WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(), transformer)
    pipeline.set_progress_bar_config(disable=True)
    words = {"prompt_embeds": torch.randn(1, CAPTION, TEXT)}
    words["negative_prompt_embeds"] = torch.randn(1, CAPTION, TEXT)
    f, h, w = CLIP
    shape = {"num_frames": 4 * f - 3, "height": 8 * h, "width": 8 * w}
    count = sum(p.numel() for p in transformer.parameters())
    print(f"diffusers' transformer has {count:,} parameters")
    return lambda: pipeline(
        **words, **shape, num_inference_steps=STEPS, guidance_scale=2.0, output_type="latent"
    )


def ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    """Return processor time of one over that of the other, round by round, in turns."""
    found = []
    for number in range(rounds + 1):
        seconds = []
        for work in (one, other):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
        if number:  # the first round warms up
            found.append(seconds[0] / seconds[1])
    return found


def main() -> None:
    """Print a row for each pair."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs a ratio is taken of")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = ModelConfig(width=WIDTH, depth=DEPTH, head_dim=HEAD, text_width=TEXT)
    network = build_network(config).requires_grad_(False)
    print(f"our transformer has {sum(p.numel() for p in network.parameters()):,} parameters")

    def drawn(sizes: list[tuple[int, int, int]], guidance: float, budget: int) -> object:
        return list(draw(network, [order_of(size, guidance) for size in sizes], budget))

    pairs = {
        "guidance: guided over unguided, one clip": (
            lambda: drawn([CLIP], 2.0, 4096),
            lambda: drawn([CLIP], 1.0, 4096),
        ),
        "guidance: guided over unguided, mixed shapes": (
            lambda: drawn(MIXED, 2.0, 4096),
            lambda: drawn(MIXED, 1.0, 4096),
        ),
        "packed: mixed shapes one by one over together": (
            lambda: [drawn([size], 2.0, 1) for size in MIXED],
            lambda: drawn(MIXED, 2.0, 4096),
        ),
    }
    if (wan := wan_pipeline()) is not None:
        pairs["diffusers: its pipeline over ours, one clip, guided"] = (
            wan,
            lambda: drawn([CLIP], 2.0, 4096),
        )
    print(f"{'what':<52}{'ratio':>7}{'quartiles':>16}  bar")
    for what, (one, other) in pairs.items():
        low, middle, high = quantiles(ratios(one, other, rounds), n=4)
        spread = f"{low:.2f} to {high:.2f}"
        print(f"{what:<52}{middle:>7.2f}{spread:>16}  {BARS[what.split(':')[0]]}", flush=True)


if __name__ == "__main__":
    main()
