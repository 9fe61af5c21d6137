"""Crossed pairs of a tiny world as tokens, made from the state at the splice and checked.

All four clips of a pair are made of the same four halves, as pixels and as tokens. That is checked
here once more on the tokens themselves, since a codec that mixes frames across the splice would
make halves that no other clip of the pair has.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from data.config import DataConfig, MemberConfig
from data.dataset.shards import read_index
from data.worlds.tiny.film import FPS
from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.state import Frames
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, Quadruplet, World, generator
from models.codec.codec import Codec
from models.dit.embed import patchify, unpatchify
from trainer.config import RunConfig
from trainer.diffusion.collate import PackItem

NAMES = ("aa", "bb", "ab", "ba")
# Streams of a world's random numbers: 0 is that of the clips trained on.
LAWFUL_STREAM, PAIR_STREAM = 1, 2
TRIES = 100  # draws of a pair whose halves differ to the eye
# As data/worlds/tiny/film.py names clips: world, law that is off, seed, index.
_KEY = re.compile(r"([a-z0-9_]+)(?:-([a-z_]+))?-\d+-\d{7,}")


@dataclass(frozen=True)
class Pair:
    """One crossed pair: ``clips`` by the names aa, bb, ab and ba; its key seeds noise and times."""

    key: str
    clips: dict[str, PackItem]


@dataclass(frozen=True)
class Seen:
    """The tiny worlds that a run was trained on, each with the laws that were off, '' for none."""

    worlds: dict[str, set[str]]

    def lawful(self, name: str) -> bool:
        """Say whether all clips of a world kept its laws."""
        return self.worlds[name] == {""}


def seen_worlds(data: DataConfig) -> Seen:
    """Look up what a run was trained on, in the index of its data set."""
    found: dict[str, set[str]] = {}
    for member in data.mixture or [MemberConfig()]:
        root, split = member.root or data.root, member.split or data.train_split
        for info in read_index(root, split):
            if (match := _KEY.fullmatch(info.key)) and _is_tiny(match[1]):
                found.setdefault(match[1], set()).add(match[2] or "")
    return Seen(found)


def _is_tiny(name: str) -> bool:
    try:
        tiny_world(name)
    except ValueError:
        return False
    return True


def check_seen(seen: Seen, names: list[str], folder: Path) -> None:
    """Raise ValueError where a run never saw one of these worlds, or any."""
    known = ", ".join(sorted(seen.worlds))
    if not known:
        raise ValueError(
            f"run={folder}: never saw a tiny world, which the probe needs. Train it on clips of "
            "kinescale worlds preset=tiny."
        )
    for name in names:
        if name not in seen.worlds:
            raise ValueError(f"worlds={name}: the run never saw it. Use {known}.")


def check_tokens(run: RunConfig, world: World[Any]) -> None:
    """Raise ValueError where tokens do not divide a world's frames, rows, columns or its splice."""
    frames, rows, columns = run.cell
    height, width = world.size
    if height % rows or width % columns or (NUM_FRAMES - 1) % frames or (SPLICE - 1) % frames:
        raise ValueError(
            f"codec.stride={list(run.codec.stride)}: its tokens of {frames} frames of {rows}x"
            f"{columns} pixels must divide the world {world.name}, 1 + {SPLICE - 1} + "
            f"{NUM_FRAMES - SPLICE} frames of {height}x{width}. Use codec=pixels."
        )


def to_item(codec: Codec, frames: Frames, text_width: int) -> PackItem:
    """Return a clip's tokens without any caption."""
    latent = codec.encode(torch.from_numpy(np.ascontiguousarray(frames)))
    return item_of(latent, frames.shape[:3], text_width)


def item_of(
    latent: Float[Tensor, "C f h w"], source: tuple[int, ...], text_width: int, fps: float = FPS
) -> PackItem:
    """Return a latent's tokens without any caption; source: frames, height and width in pixels."""
    nothing = torch.zeros(0, text_width)
    _, f, h, w = latent.shape
    num_frames, height, width = source
    return PackItem(patchify(latent), (f, h, w), (num_frames, height, width), fps, nothing, nothing)


def first_frames(stride: int, splice: int = SPLICE) -> int:
    """Return how many latent frames of a clip lie wholly before a splice."""
    return 1 + (splice - 1) // stride


def first_tokens(item: PackItem, frames: int) -> int:
    """Return how many tokens the first latent frames of a clip have."""
    _, h, w = item.size
    return frames * (h // 2) * (w // 2)


def check_halves(world: str, prop: str, tokens: dict[str, Tensor], first: int) -> None:
    """Raise ValueError unless four clips are made of the same four halves, all of them different.

    tokens: of aa, bb, ab and ba, (S, V). first: how many of them lie before the splice.
    """
    for name, before, after in (("ab", "aa", "bb"), ("ba", "bb", "aa")):
        joined = torch.cat([tokens[before][:first], tokens[after][first:]])
        if not torch.equal(tokens[name], joined):
            raise ValueError(
                f"property={prop}: clip {name} of {world} is not made of the halves of aa and bb, "
                "so that their statistics differ. Use codec=pixels, and cross by World.cross."
            )
    if not _halves_differ(tokens, first):
        raise ValueError(
            f"property={prop}: a half of aa and bb of {world} is the same, so that nothing is "
            "crossed. Draw another pair."
        )


def _halves_differ(tokens: dict[str, Tensor], first: int) -> bool:
    aa, bb = tokens["aa"], tokens["bb"]
    return not (torch.equal(aa[:first], bb[:first]) or torch.equal(aa[first:], bb[first:]))


def draw_pairs(
    run: RunConfig, codec: Codec, world: World[Any], prop: str, count: int, seed: int
) -> list[Pair]:
    """Draw crossed pairs of a property; the same for the same seed.

    Raises ValueError where a world has no such property, or none whose halves can be crossed.
    """
    check_tokens(run, world)
    world.check(prop)
    stream = PAIR_STREAM + (*world.laws, *world.free).index(prop)
    pairs = []
    for index in range(count):
        rng = generator(world.name, seed, index, stream)
        for _ in range(TRIES):  # a difference that rounding or a wall hides is drawn again
            found = world.crossed(rng, prop)
            clips = _tokens_of(run, codec, found)
            first = first_tokens(clips["aa"], first_frames(run.codec.stride[0]))
            if _halves_differ({name: clip.tokens for name, clip in clips.items()}, first):
                break
        check_halves(world.name, prop, {name: clip.tokens for name, clip in clips.items()}, first)
        pairs.append(Pair(f"{world.name}/{prop}/{index}", clips))
    return pairs


def _tokens_of(run: RunConfig, codec: Codec, found: Quadruplet) -> dict[str, PackItem]:
    return {name: to_item(codec, found.frames[name], run.text.width) for name in NAMES}


def reversed_pairs(pairs: list[Pair], codec: Codec, text_width: int) -> list[Pair]:
    """Return the same pairs played backwards, each clip from its last frame to its first."""

    def turned(item: PackItem) -> PackItem:
        frames = codec.decode(unpatchify(item.tokens, *item.size), *item.source[1:])
        return to_item(codec, frames.numpy()[::-1], text_width)

    return [
        Pair(pair.key, {name: turned(clip) for name, clip in pair.clips.items()}) for pair in pairs
    ]


def lawful_clips(
    run: RunConfig, codec: Codec, world: World[Any], count: int, seed: int
) -> list[PackItem]:
    """Return fresh lawful clips of a world."""
    states = (
        world.draw(generator(world.name, seed, index, LAWFUL_STREAM)) for index in range(count)
    )
    return [to_item(codec, world.render(state), run.text.width) for state in states]


def stacked(clips: list[PackItem]) -> Float[Tensor, "N S V"]:
    """Return the tokens of clips of one size."""
    return torch.stack([clip.tokens for clip in clips])
