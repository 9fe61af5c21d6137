"""Which samples share a pack, decided before anything is decoded.

The planner sees only the index: sizes in, packs of sample numbers out. It knows neither ranks nor
workers, which is why a run can change both and still meet every sample once per epoch.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.dataset.sample import SampleInfo
from data.dataset.table import Table, lengths_of, tally
from data.dataset.tokens import Cell
from data.loading.stream import Planned, Span, Stream

# A transformer block costs about 24 D^2 FLOPs a token plus 4 D s for attention over s tokens; both
# are equal at s = 6 D. Packs of one step have nearly equal token counts, so their order hardly
# depends on this; D = 1024 is the middle of the ladders that use several ranks.
EQUAL_COST_TOKENS = 6 * 1024


def pack_cost(lengths: Sequence[int]) -> float:
    """Model the time of a pack, in token units: linear plus quadratic in segment lengths."""
    return sum(s + s * s / EQUAL_COST_TOKENS for s in lengths)


def deal(costs: Sequence[float], world: int) -> list[list[int]]:
    """Deal packs, given longest first, to ranks: ``len(costs) / world`` each, nearly equal work.

    Each pack goes to the least loaded rank that has room (longest processing time first); then the
    slowest rank swaps packs with others as long as that shortens the step. Returns pack numbers per
    rank, longest first.
    """
    assert len(costs) % world == 0
    room = len(costs) // world
    hands: list[list[int]] = [[] for _ in range(world)]
    ranks = [(0.0, rank) for rank in range(world)]  # a heap: the least loaded rank on top
    for number, cost in enumerate(costs):
        load, rank = heappop(ranks)
        hands[rank].append(number)
        if len(hands[rank]) < room:
            heappush(ranks, (load + cost, rank))
    held = np.array(hands)
    values = np.asarray(costs, np.float64)
    # Each swap lowers a highest load, so this would end by itself; the bound saves planning time.
    for _ in range(len(costs)):
        if not _swap_from_slowest(held, values):
            break
    return [sorted(hand) for hand in held.tolist()]


def _swap_from_slowest(hands: NDArray[np.int64], costs: NDArray[np.float64]) -> bool:
    """Make the one swap that lowers the slowest rank's load most; say whether there was one."""
    held = costs[hands]  # (ranks, packs of a rank)
    loads = held.sum(1)
    slow = int(loads.argmax())
    moved = held[slow][:, None, None] - held  # (packs of the slowest, ranks, packs of a rank)
    higher = np.maximum(loads[slow] - moved, loads[:, None] + moved)
    higher[:, slow] = np.inf
    mine, rank, theirs = np.unravel_index(higher.argmin(), higher.shape)
    # The margin keeps rounding from swapping equal packs back and forth.
    if not higher[mine, rank, theirs] < loads[slow] * (1 - 1e-9):
        return False
    hands[slow, mine], hands[rank, theirs] = hands[rank, theirs], hands[slow, mine]
    return True


class PackPlanner:
    """Plan endless optimizer steps over the stream of one permutation per pass of each source.

    A pool of ``pool`` samples is kept full; the oldest seeds a pack, then the largest that still
    fits joins, until nothing fits or ``max_segments`` are in. Oldest-first bounds the wait of every
    sample to ``pool`` packs. Two planners with equal arguments and state plan equally.

    in_order: until this share of a pack is full, the oldest that fits joins instead of the largest,
        which keeps small samples from piling up in the pool.
    spans: the sources of a mixture as rows of ``infos``; none means that all are one source.
    shuffle_shards: shards whose samples are mixed at a time; 0 mixes all (see :class:`Stream`).

    Raises ValueError for a sample that no pack can hold, and for arguments out of range.
    """

    def __init__(
        self,
        infos: Sequence[SampleInfo],
        cell: Cell,
        pack_tokens: int,
        packs_per_step: int,
        max_segments: int,
        pool: int,
        seed: int,
        spans: Sequence[Span] = (),
        shuffle_shards: int = 0,
        in_order: float = 0.0,
    ) -> None:
        for name, value, least in [
            ("pack_tokens", pack_tokens, 1),
            ("packs_per_step", packs_per_step, 1),
            ("max_segments", max_segments, 1),
            ("pool", pool, 1),
            ("seed", seed, 0),
            ("shuffle_shards", shuffle_shards, 0),
        ]:
            if value < least:
                raise ValueError(f"data.{name}={value}: must be at least {least}. Use {least}.")
        if not 0 <= in_order <= 1:
            raise ValueError(f"data.in_order={in_order}: must be a share from 0 to 1. Use 0.5.")
        self.lengths = lengths_of(infos, cell)
        self._check_fit(infos, pack_tokens)
        self.pack_tokens = pack_tokens
        self.packs_per_step = packs_per_step
        self.max_segments = max_segments
        self.pool = pool
        self.seed = seed
        self.spans = list(spans) or [Span(0, len(infos), 1.0)]
        self.shuffle_shards = shuffle_shards
        self.in_order = in_order
        shards = shard_numbers(infos) if shuffle_shards else None
        self._stream = Stream(self.lengths, self.spans, seed, shuffle_shards, shards)
        self._arrivals = 0
        self._by_length: list[tuple[int, int]] = []  # (length, -arrival), ascending
        self._by_age: dict[int, tuple[int, Planned]] = {}  # arrival -> place in the stream, sample

    def _check_fit(self, infos: Sequence[SampleInfo], pack_tokens: int) -> None:
        if not len(infos):
            raise ValueError("infos=[]: must hold at least one sample. Choose another split.")
        counts = tally(self.lengths)
        largest = max(counts)
        if largest > pack_tokens:
            count = sum(n for length, n in counts.items() if length > pack_tokens)
            info = infos[self.lengths.index(largest)]
            raise ValueError(
                f"data.pack_tokens={pack_tokens}: must hold the largest sample, but {count} are "
                f"larger; {info.key!r} ({info.num_frames}x{info.height}x{info.width}) has "
                f"{largest} tokens. Clips are cut in time where a pack holds two of "
                "their latent frames; stills and encoded latents are not. Use at least "
                f"{largest}, or ingest with a lower ingest.token_cap."
            )

    def next_step(self) -> list[list[Planned]]:
        """Plan ``packs_per_step`` packs, longest first by modelled cost."""
        packs = [self._next_pack() for _ in range(self.packs_per_step)]
        # Stable: packs of equal cost stay in the order of the stream.
        packs.sort(key=lambda pack: -pack_cost([self.lengths[p.index] for p in pack]))
        return packs

    def _next_pack(self) -> list[Planned]:
        self._refill()
        oldest = next(iter(self._by_age))
        pack = [self._take(oldest)]
        free = self.pack_tokens - self.lengths[pack[0].index]
        while len(pack) < self.max_segments:
            self._refill()
            by_age = free > (1 - self.in_order) * self.pack_tokens
            arrival = self._oldest(free) if by_age else self._largest(free)
            if arrival is None:
                break
            pack.append(self._take(arrival))
            free -= self.lengths[pack[-1].index]
        return pack

    def _largest(self, free: int) -> int | None:
        """Return the largest sample of the pool that fits, the oldest among equals."""
        # Among equal lengths the last tuple below the bound is the oldest sample.
        place = bisect_right(self._by_length, (free, 1))
        return -self._by_length[place - 1][1] if place else None

    def _oldest(self, free: int) -> int | None:
        """Return the oldest sample of the pool that fits."""
        lengths = self.lengths
        fits = (a for a, (_, p) in self._by_age.items() if lengths[p.index] <= free)
        return next(fits, None)

    def _take(self, arrival: int) -> Planned:
        _, planned = self._by_age.pop(arrival)
        entry = (self.lengths[planned.index], -arrival)
        del self._by_length[bisect_right(self._by_length, entry) - 1]
        return planned

    def _refill(self) -> None:
        while len(self._by_age) < self.pool:
            self._insert(*self._stream.draw())

    def _insert(self, code: int, planned: Planned) -> None:
        self._by_age[self._arrivals] = code, planned
        insort(self._by_length, (self.lengths[planned.index], -self._arrivals))
        self._arrivals += 1

    def parameters(self) -> dict[str, Any]:
        """Return what the plan depends on beside the dataset and the state.

        A mixture is named by the samples and the weight of each source: their order is the state's.
        """
        known: dict[str, Any] = {
            "pack_tokens": self.pack_tokens,
            "packs_per_step": self.packs_per_step,
            "max_segments": self.max_segments,
            "pool": self.pool,
            "seed": self.seed,
        }
        # Left out where they have no effect, so that states of earlier versions still resume.
        if self.in_order:
            known["in_order"] = self.in_order
        if self._stream.scatters:
            known["order"] = "scattered"
        if self.shuffle_shards:
            known["shuffle_shards"] = self.shuffle_shards
        if len(self.spans) > 1:
            known["mixture"] = [[span.stop - span.start, span.weight] for span in self.spans]
        return known

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable state: the stream's, and the places in the pool by age."""
        pool = [code for code, _ in self._by_age.values()]
        return {"seed": self.seed, **self._stream.state_dict(), "pool": pool}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken. Raises ValueError on another seed."""
        if state["seed"] != self.seed:
            raise ValueError(
                f"seed={self.seed}: must equal the saved plan's seed={state['seed']}. "
                f"Use seed={state['seed']}, or start a new run."
            )
        codes = [int(code) for code in state["pool"]]
        # In the order of passes, so that each pass's permutation is worked out once.
        found = {code: self._stream.locate(code) for code in sorted(codes)}
        self._stream.load_state_dict(state)
        self._by_length, self._by_age = [], {}
        for code in codes:
            self._insert(code, found[code])


def shard_numbers(infos: Sequence[SampleInfo]) -> NDArray[np.int64]:
    """Number the shards in the order of the index; a change of shard begins another one."""
    if isinstance(infos, Table):
        numbers = np.asarray(infos.column("shard"))
        return np.cumsum(np.diff(numbers, prepend=numbers[:1]) != 0, dtype=np.int64)
    names = [info.shard for info in infos]
    changes = [place > 0 and name != names[place - 1] for place, name in enumerate(names)]
    return np.cumsum(np.array(changes, np.int64), dtype=np.int64)
