"""Crossed pairs of the 3-D worlds as tokens: latents of A and B, with their endings exchanged.

Clips are crossed as latents, so that all four are made of the same four halves, whatever the codec
is. A codec whose latents see earlier frames leaves in a second half a trace of its own first half.
How large that is, is measured: of the clip whose pixels are crossed, the second half's distance
from B's, as a share of that of A's from B's.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.config import DataConfig, MemberConfig
from data.dataset.shards import read_index
from data.worlds.hidden import FPS, NUM_FRAMES, SPLICE, Frames, HiddenPair, hidden_pair
from models.codec.codec import Codec
from trainer.config import RunConfig
from trainer.probes.likelihood.pairs import (
    Pair,
    check_halves,
    first_frames,
    first_tokens,
    item_of,
)

Latent = Float[Tensor, "C f h w"]
SIZE = (96, 128)  # of the pictures, as of many clips of these worlds


def check_filmed(data: DataConfig, names: Sequence[str], folder: Path) -> None:
    """Raise ValueError where a run never saw one of these 3-D worlds."""
    sources = {
        info.source.split("/")[0]
        for member in data.mixture or [MemberConfig()]
        for info in read_index(member.root or data.root, member.split or data.train_split)
    }
    for name in names:
        if name not in sources:
            raise ValueError(
                f"worlds={name}: the run {folder} never saw it. Train it on clips of kinescale "
                f"worlds worlds.{name}=1."
            )


def check_cells(run: RunConfig) -> None:
    """Raise ValueError where tokens do not divide the pictures, the clip or its splice."""
    frames, rows, columns = run.cell
    height, width = SIZE
    if height % rows or width % columns or (NUM_FRAMES - 1) % frames or (SPLICE - 1) % frames:
        raise ValueError(
            f"codec.stride={list(run.codec.stride)}: its tokens of {frames} frames of {rows}x"
            f"{columns} pixels must divide 1 + {SPLICE - 1} + {NUM_FRAMES - SPLICE} frames of "
            f"{height}x{width}. Ask tiny worlds alone."
        )


def film_pairs(world: str, prop: str, count: int, seed: int) -> list[HiddenPair]:
    """Film crossed pairs of a property; the same for the same seed."""
    return [hidden_pair(world, prop, seed, index, *SIZE) for index in range(count)]


def crossed_pairs(
    run: RunConfig, codec: Codec, world: str, prop: str, filmed: Sequence[HiddenPair]
) -> list[Pair]:
    """Return pairs as tokens of four clips each."""
    first = first_frames(run.codec.stride[0], SPLICE)
    pairs = []
    for index, pair in enumerate(filmed):
        a, b = (encoded(codec, frames) for frames in (pair.a, pair.b))
        latents = {"aa": a, "bb": b, "ab": joined(a, b, first), "ba": joined(b, a, first)}
        clips = {
            key: item_of(latent, pair.a.shape[:3], run.text.width, FPS)
            for key, latent in latents.items()
        }
        tokens = {key: clip.tokens for key, clip in clips.items()}
        check_halves(world, prop, tokens, first_tokens(clips["aa"], first))
        pairs.append(Pair(f"{world}/{prop}/{index}", clips))
    return pairs


def turned(filmed: Sequence[HiddenPair]) -> list[HiddenPair]:
    """Return the same pairs played backwards. The frame that A and B share stays in its place."""
    return [HiddenPair(pair.a[::-1], pair.b[::-1]) for pair in filmed]


def trace(codec: Codec, filmed: Sequence[HiddenPair], stride: int) -> float:
    """Return how far a second half's latents depend on the first half; 0: not at all, 1: wholly."""
    first = first_frames(stride, SPLICE)
    own = between = 0.0
    for pair in filmed:
        mixed = np.concatenate([pair.a[:SPLICE], pair.b[SPLICE:]])
        a, b, ab = (encoded(codec, frames)[:, first:] for frames in (pair.a, pair.b, mixed))
        own += float((ab - b).square().sum())
        between += float((a - b).square().sum())
    return math.sqrt(own / between)


def encoded(codec: Codec, frames: Frames) -> Latent:
    """Return a clip's latent in single precision."""
    return codec.encode(torch.from_numpy(np.ascontiguousarray(frames))).float()


def joined(before: Latent, after: Latent, first: int) -> Latent:
    """Return the first latent frames of one clip and the later ones of another."""
    return torch.cat([before[:, :first], after[:, first:]], 1)
