"""Which worlds are filmed for a dataset: seeds and maps, no world in two splits."""

from collections.abc import Mapping, Sequence

import numpy as np

from data.worlds.sources import (
    DOOM_WIDE,
    TAKES,
    CraftPart,
    DoomPart,
    FramingPart,
    PhysicsPart,
    RoomsPart,
    TinyPart,
)

CLIPS_PER_PART = 50
TINY_CLIPS_PER_PART = 500
CLIPS_PER_MAP = 25  # of a crafter world, which takes more than a second to make
VAL_CLIPS_PER_MAP = 8
VAL_MAPS = 8
# Seeds of the validation split start here; training never has as many maps.
VAL_SEED = 500_000
SEEDS_PER_RUN = 1_000_000
WORLD_NAMES = ("rooms", "physics", "craft", "doom")

WorldPart = RoomsPart | PhysicsPart | CraftPart | DoomPart | FramingPart | TinyPart


def check_shares(shares: Mapping[str, float], names: Sequence[str] = WORLD_NAMES) -> None:
    """Raise ValueError on unknown worlds or nothing to film."""
    for name, share in shares.items():
        if name not in names:
            raise ValueError(f"worlds.{name}={share}: is no world. Use {', '.join(names)}.")
    if sum(shares.values()) <= 0:
        raise ValueError("worlds={}: all shares are 0. Give at least one, as worlds.rooms=1.")


def deal_clips(
    shares: Mapping[str, float], num_clips: int, worlds: Sequence[str] = WORLD_NAMES
) -> dict[str, int]:
    """Share clips out among the worlds by their shares; the counts sum to ``num_clips``."""
    check_shares(shares, worlds)
    total = sum(shares.values())
    names = [name for name in worlds if shares.get(name, 0) > 0]
    ends = np.cumsum([shares[name] / total for name in names])
    edges = [0, *(round(num_clips * end) for end in ends.tolist()[:-1]), num_clips]
    return {name: edges[i + 1] - edges[i] for i, name in enumerate(names)}


def plan_seeds(
    kind: type[RoomsPart] | type[PhysicsPart],
    split: str,
    first_seed: int,
    num_clips: int,
    takes: int,
) -> list[WorldPart]:
    """Deal clips of rooms or physics into parts of consecutive seeds."""
    size = CLIPS_PER_PART
    return [
        kind(split, first_seed + start // takes, min(size, num_clips - start), takes)
        for start in range(0, num_clips, size)
    ]


def plan_craft(split: str, first_seed: int, num_clips: int, per_map: int) -> list[WorldPart]:
    """Deal clips into crafter worlds."""
    return [
        CraftPart(split, first_seed + number, min(per_map, num_clips - start))
        for number, start in enumerate(range(0, num_clips, per_map))
    ]


def plan_doom(
    split: str, maps: list[tuple[str, str]], seed: int, num_clips: int
) -> list[WorldPart]:
    """Deal clips over maps: most at 120x160, about a quarter wide."""
    parts: list[WorldPart] = []
    for number, (wad, map_name) in enumerate(maps):
        share = num_clips * (number + 1) // len(maps) - num_clips * number // len(maps)
        wide = share // 4
        height, width = DOOM_WIDE[number % len(DOOM_WIDE)]
        for count, size in ((share - wide, (120, 160)), (wide, (height, width))):
            if count:
                parts.append(DoomPart(split, wad, map_name, seed, count, *size))
    return parts


def plan_split(
    split: str,
    counts: Mapping[str, int],
    seed: int,
    first: int,
    maps: list[tuple[str, str]],
    held_out: bool,
) -> list[WorldPart]:
    """Plan the clips of one split from its seeds and its maps."""
    takes = 1 if held_out else TAKES
    parts: list[WorldPart] = []
    doom = counts.get("doom", 0)
    if doom:
        # A walk costs half a second to start: small sets visit fewer maps.
        most = max(1, doom // (3 if held_out else 10))
        parts += plan_doom(split, maps[:most], seed, doom)
    per_map = VAL_CLIPS_PER_MAP if held_out else CLIPS_PER_MAP
    parts += plan_craft(split, first, counts.get("craft", 0), per_map)
    parts += plan_seeds(PhysicsPart, split, first, counts.get("physics", 0), takes)
    parts += plan_seeds(RoomsPart, split, first, counts.get("rooms", 0), takes)
    return parts


def plan_worlds(
    seed: int, shares: Mapping[str, float], num_train: int, num_val: int
) -> list[WorldPart]:
    """Plan the rendered clips of train and val_worlds: other seeds and other maps in each."""
    from data.worlds.doom.film import map_names

    check_counts(num_train, num_val)
    maps = map_names()
    # The same maps are held out under every seed, so that more data keeps them unseen.
    order = np.random.default_rng([0x3A9, 0]).permutation(len(maps)).tolist()
    held_out = [maps[i] for i in order[:VAL_MAPS]]
    others = [maps[i] for i in order[VAL_MAPS:]]
    first = seed * SEEDS_PER_RUN
    train, val = deal_clips(shares, num_train), deal_clips(shares, num_val)
    return [
        *plan_split("train", train, seed, first, others, False),
        *plan_split("val_worlds", val, seed, first + VAL_SEED, held_out, True),
    ]


def plan_framing(seed: int, num_train: int, num_val: int) -> list[WorldPart]:
    """Plan the framing set: one subject a clip, other seeds in each split."""
    check_counts(num_train, num_val)
    first = seed * SEEDS_PER_RUN
    return [
        FramingPart(split, start + offset, min(CLIPS_PER_PART, count - offset))
        for split, start, count in (
            ("train", first, num_train),
            ("val_worlds", first + VAL_SEED, num_val),
        )
        for offset in range(0, count, CLIPS_PER_PART)
    ]


def plan_tiny(
    seed: int, shares: Mapping[str, float], lawless: str, num_train: int, num_val: int
) -> list[WorldPart]:
    """Plan clips of tiny worlds: other indices in each split, which a finite world may not heed.

    Raises ValueError on names that are no tiny world, and where one lacks the law that is off.
    """
    from data.worlds.tiny.registry import TINY_WORLDS, tiny_world
    from data.worlds.tiny.world import ALL

    check_counts(num_train, num_val)
    wanted = [name for name, share in shares.items() if share > 0]
    for name in wanted:
        world = tiny_world(name)
        if lawless not in ("", ALL, *world.laws):
            raise ValueError(
                f"lawless={lawless}: is no law of {name}, which has {', '.join(world.laws)}. "
                f"Use {ALL}, or worlds that have it."
            )
    names = [*TINY_WORLDS, *(name for name in wanted if name not in TINY_WORLDS)]
    return [
        TinyPart(split, name, seed, first + start, min(TINY_CLIPS_PER_PART, count - start), lawless)
        for split, first, total in (("train", 0, num_train), ("val_worlds", VAL_SEED, num_val))
        for name, count in deal_clips(shares, total, names).items()
        for start in range(0, count, TINY_CLIPS_PER_PART)
    ]


def check_counts(num_train: int, num_val: int) -> None:
    """Raise ValueError on more clips than there are seeds for."""
    if max(num_train, num_val) >= VAL_SEED:
        raise ValueError(
            f"num_train_clips={num_train}: must be under {VAL_SEED}, where held-out seeds begin. "
            "Build several datasets with other seeds, as seed=1."
        )
