"""Ways to put clips of many sizes into batches of a token budget, to compare with the loader's."""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.native_sizes import ASPECTS, CELL, SHORT_SIDES, Clip, as_infos
from data.dataset.tokens import grid, tokens
from data.loading.planner import PackPlanner

BUCKET_FRAMES = (1, 25, 49, 97, 193, 385)  # roughly doubled at each step, 1 + 4k
MAX_SEGMENTS = 4096
LEAST_PIECE = 2  # latent frames of the shortest piece a clip is cut into


@dataclass
class Batch:
    """What one rank computes in one micro-batch.

    lengths: useful tokens of each sample; computed: those computed for each, padding included.
    budget: tokens whose room the batch takes; dropped: source tokens that were cropped away.
    wait: batches made since the sample that waited longest came in.
    """

    lengths: list[int]
    budget: int
    computed: list[int] = field(default_factory=list)
    dropped: int = 0
    wait: int = 0

    def __post_init__(self) -> None:
        self.computed = self.computed or self.lengths


def next_fit(clips: list[Clip], budget: int) -> Iterator[Batch]:
    """Close a pack at the first sample that does not fit."""
    pack: list[int] = []
    used = 0
    for clip in clips:
        length = clip.tokens
        if used + length > budget:
            yield Batch(pack, budget)
            pack, used = [], 0
        pack.append(length)
        used += length


def best_fit_window(clips: list[Clip], budget: int, window: int) -> Iterator[Batch]:
    """Pack each window of samples by itself: largest first, into the fullest pack with room."""
    for start in range(0, len(clips) - window + 1, window):
        packs: list[list[int]] = []
        rooms: list[tuple[int, int]] = []  # (room, pack), ascending
        for length in sorted((c.tokens for c in clips[start : start + window]), reverse=True):
            place = bisect_right(rooms, (length, -1))
            if place == len(rooms):
                packs.append([])
                room, number = budget, len(packs) - 1
            else:
                room, number = rooms.pop(place)
            packs[number].append(length)
            insort(rooms, (room - length, number))
        for place, pack in enumerate(packs):
            yield Batch(pack, budget, wait=place)


def loader_planner(clips: list[Clip], budget: int, pool: int, in_order: float) -> PackPlanner:
    """Return the loader's planner, one pack a step."""
    infos = as_infos(clips)
    return PackPlanner(infos, CELL, budget, 1, MAX_SEGMENTS, pool, seed=0, in_order=in_order)


def refill_pool(
    clips: list[Clip], budget: int, pool: int, in_order: float = 0.0
) -> Iterator[Batch]:
    """Pack as the loader does: this is its planner."""
    planner = loader_planner(clips, budget, pool, in_order)
    while True:
        (pack,) = planner.next_step()
        if any(planned.visit for planned in pack):
            return
        yield Batch([planner.lengths[p.index] for p in pack], budget)


def longest_wait(clips: list[Clip], budget: int, pool: int, in_order: float = 0.0) -> int:
    """Return the most packs that a sample waited in the loader's pool."""
    planner = loader_planner(clips, budget, pool, in_order)
    first_seen: dict[int, int] = {}
    longest, number = 0, 0
    while planner.state_dict()["position"] < len(clips):
        planner.next_step()
        waiting = planner.state_dict()["pool"]
        for code in waiting:
            longest = max(longest, number - first_seen.setdefault(code, number))
        number += 1
    return longest + 1


@dataclass
class _Waiting:
    """A clip or the rest of one: latent frames left, tokens of each, and when it came."""

    frames: int
    area: int
    arrival: int
    born: int

    @property
    def length(self) -> int:
        return self.frames * self.area


def refill_and_cut(
    clips: list[Clip], budget: int, pool: int, equal_parts: bool = False
) -> Iterator[Batch]:
    """Refill pool whose last hole is filled with the beginning of a clip; the rest waits on.

    A piece of k latent frames and a rest of f - k cover the same tokens as the clip; each cut skips
    three source frames, as every piece has 1 + 4 n of them. ``equal_parts`` only splits clips that
    are longer than a pack, into equal parts.
    """
    source = enumerate(_parts(clips, budget if equal_parts else 0))
    held: dict[int, _Waiting] = {}
    by_length: list[tuple[int, int]] = []
    number, exhausted = 0, False
    item: _Waiting | None

    def insert(item: _Waiting) -> None:
        held[item.arrival] = item
        insort(by_length, (item.length, -item.arrival))

    def take(arrival: int) -> _Waiting:
        item = held.pop(arrival)
        del by_length[bisect_right(by_length, (item.length, -arrival)) - 1]
        return item

    def refill() -> None:
        nonlocal exhausted
        while len(held) < pool and not exhausted:
            arrival, part = next(source, (-1, (0, 0)))
            exhausted = arrival < 0
            if not exhausted:
                insert(_Waiting(*part, arrival, number))

    while True:
        refill()
        if exhausted:
            return
        item = take(min(held))
        pack, free, wait = [], budget, 0
        while item is not None:
            frames = _fitting(item, free)
            pack.append(frames * item.area)
            free -= pack[-1]
            wait = max(wait, number - item.born)
            if frames < item.frames:
                insert(_Waiting(item.frames - frames, item.area, item.arrival, item.born))
            refill()
            place = bisect_right(by_length, (free, 1))
            if place:
                item = take(-by_length[place - 1][1])
                continue
            fills = [(_fitting(i, free) * i.area, -i.arrival) for i in held.values()]
            most, negative = max(fills, default=(0, 0))
            item = take(-negative) if most and not equal_parts else None
        yield Batch(pack, budget, wait=wait)
        number += 1


def _parts(clips: list[Clip], limit: int) -> Iterator[tuple[int, int]]:
    """Yield (latent frames, tokens of one) of clips in equal parts of at most ``limit`` tokens."""
    for clip in clips:
        f, h, w = grid(clip.num_frames, clip.height, clip.width, CELL)
        count = 1
        while limit and -(-f // count) * h * w > limit:
            count += 1
        yield from ((f * (k + 1) // count - f * k // count, h * w) for k in range(count))


def _fitting(item: _Waiting, free: int) -> int:
    """Return how many latent frames fit: all, or a beginning that leaves a rest worth keeping."""
    if item.length <= free:
        return item.frames
    frames = min(free // item.area, item.frames - LEAST_PIECE)
    return frames if frames >= LEAST_PIECE else 0


def buckets(clips: list[Clip], budget: int) -> Iterator[Batch]:
    """Batch clips of one resolution, shape and length, as Open-Sora's bucket sampler does.

    A clip goes to the longest bucket it fills, and what is longer is cropped in time. All aspect
    ratios of the set have buckets here, so nothing is lost in space; foreign sets lose there, too.
    """
    waiting: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    number = 0
    for clip in clips:
        frames = max(f for f in BUCKET_FRAMES if f <= clip.num_frames)
        shape = (frames, clip.height, clip.width)
        length = tokens(*shape, CELL)
        waiting[shape].append((clip.tokens - length, number))
        if (len(waiting[shape]) + 1) * length > budget:
            members = waiting.pop(shape)
            dropped = sum(lost for lost, _ in members)
            wait = number - members[0][1]
            yield Batch([length] * len(members), length * len(members), dropped=dropped, wait=wait)
            number += 1


def num_buckets() -> int:
    """Return how many buckets there are."""
    return len(SHORT_SIDES) * len(ASPECTS) * len(BUCKET_FRAMES)


def pad_to_longest(clips: list[Clip], budget: int) -> Iterator[Batch]:
    """Fill batches in order, each sample padded to the longest of its batch."""
    batch: list[int] = []
    for clip in clips:
        length = clip.tokens
        if batch and (len(batch) + 1) * max([*batch, length]) > budget:
            yield Batch(batch, len(batch) * max(batch), [max(batch)] * len(batch))
            batch = []
        batch.append(length)
