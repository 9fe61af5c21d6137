"""Held-out captions as prompts: of all worlds and frame shapes, the same for every study."""

import hashlib
from itertools import zip_longest

from data.dataset.shards import SampleInfo, read_index

Prompt = SampleInfo  # its captions, shape and key; nobody opens its payload


def shape_of(info: SampleInfo) -> str:
    """Say in a word how a frame is shaped: wide, tall or square."""
    ratio = info.width / info.height
    if ratio > 1.1:
        return "wide"
    return "tall" if ratio < 1 / 1.1 else "square"


def choose_prompts(root: str, split: str, count: int) -> list[Prompt]:
    """Choose moving held-out clips, dealt evenly over worlds and frame shapes.

    The order depends on keys alone, so a larger count only adds prompts. Raises ValueError where
    the split has too few.
    """
    groups: dict[tuple[str, str], list[SampleInfo]] = {}
    for info in read_index(root, split):
        if info.num_frames > 1:
            groups.setdefault((info.source.split("/")[0], shape_of(info)), []).append(info)
    for members in groups.values():
        members.sort(key=lambda info: hashlib.sha256(info.key.encode()).hexdigest())
    dealt = zip_longest(*(groups[name] for name in sorted(groups)))
    found = [info for row in dealt for info in row if info is not None]
    if len(found) < count:
        raise ValueError(
            f"draws.prompts={count}: {root}/{split} holds {len(found)} moving clips. Use fewer."
        )
    return found[:count]
