"""Which samples share a pack, decided before anything is decoded.

The planner sees only the index: sizes in, packs of sample numbers out. It knows neither ranks nor
workers, which is why a run can change both and still meet every sample once per epoch.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sample import SampleInfo

Cell = tuple[int, int, int]

# A transformer block costs about 24 D^2 FLOPs a token plus 4 D s for attention over s tokens; both
# are equal at s = 6 D. Packs of one step have nearly equal token counts, so their order hardly
# depends on this; D = 1024 is the middle of the ladders that use several ranks.
EQUAL_COST_TOKENS = 6 * 1024


def grid(num_frames: int, height: int, width: int, cell: Cell) -> tuple[int, int, int]:
    """Return the token grid (f, h, w) of a clip; the first frame stands alone in time."""
    return 1 + -(-(num_frames - 1) // cell[0]), -(-height // cell[1]), -(-width // cell[2])


def tokens(num_frames: int, height: int, width: int, cell: Cell) -> int:
    """Count video tokens: (1 + ceil((F - 1) / cell_f)) * ceil(H / cell_h) * ceil(W / cell_w)."""
    f, h, w = grid(num_frames, height, width, cell)
    return f * h * w


def pack_cost(lengths: Sequence[int]) -> float:
    """Model the time of a pack, in token units: linear plus quadratic in segment lengths."""
    return sum(s + s * s / EQUAL_COST_TOKENS for s in lengths)


def deal(costs: Sequence[float], world: int) -> list[list[int]]:
    """Deal packs, given longest first, to ranks: ``len(costs) / world`` each, nearly equal work.

    Each pack goes to the least loaded rank that has room; then the slowest rank swaps packs with
    others as long as that shortens the step. Returns pack numbers per rank, longest first.
    """
    assert len(costs) % world == 0
    hands: list[list[int]] = [[] for _ in range(world)]
    loads = [0.0] * world
    for number, cost in enumerate(costs):
        open_ranks = (r for r in range(world) if len(hands[r]) < len(costs) // world)
        rank = min(open_ranks, key=lambda r: (loads[r], r))
        hands[rank].append(number)
        loads[rank] += cost
    # Each swap lowers a highest load, so this would end by itself; the bound saves planning time.
    for _ in range(len(costs)):
        if not _swap_from_slowest(hands, loads, costs):
            break
    return [sorted(hand) for hand in hands]


def _swap_from_slowest(hands: list[list[int]], loads: list[float], costs: Sequence[float]) -> bool:
    """Make the one swap that lowers the slowest rank's load most; say whether there was one."""
    slow = max(range(len(hands)), key=lambda r: (loads[r], -r))
    best, chosen = loads[slow], None
    for rank in range(len(hands)):
        if rank == slow:
            continue
        for i, mine in enumerate(hands[slow]):
            for j, theirs in enumerate(hands[rank]):
                moved = costs[mine] - costs[theirs]
                higher = max(loads[slow] - moved, loads[rank] + moved)
                # The margin keeps rounding from swapping equal packs back and forth.
                if higher < best * (1 - 1e-9):
                    best, chosen = higher, (rank, i, j, moved)
    if chosen is None:
        return False
    rank, i, j, moved = chosen
    hands[slow][i], hands[rank][j] = hands[rank][j], hands[slow][i]
    loads[slow] -= moved
    loads[rank] += moved
    return True


@dataclass(frozen=True, slots=True)
class Planned:
    """One planned sample: its number in the index, and the epoch that this visit belongs to."""

    index: int
    visit: int


class PackPlanner:
    """Plan endless optimizer steps over the concatenation of one permutation per epoch.

    A pool of ``pool`` samples is kept full; the oldest seeds a pack, then the largest that still
    fits joins, until nothing fits or ``max_segments`` are in. Oldest-first bounds the wait of every
    sample to ``pool`` packs. Two planners with equal arguments and state plan equally.

    Raises ValueError for a sample that no pack can hold, and for arguments out of range.
    """

    def __init__(
        self,
        infos: list[SampleInfo],
        cell: Cell,
        pack_tokens: int,
        packs_per_step: int,
        max_segments: int,
        pool: int,
        seed: int,
    ) -> None:
        for name, value, least in [
            ("pack_tokens", pack_tokens, 1),
            ("packs_per_step", packs_per_step, 1),
            ("max_segments", max_segments, 1),
            ("pool", pool, 1),
            ("seed", seed, 0),
        ]:
            if value < least:
                raise ValueError(f"data.{name}={value}: must be at least {least}. Use {least}.")
        self.lengths = [tokens(i.num_frames, i.height, i.width, cell) for i in infos]
        self._check_fit(infos, pack_tokens)
        self.pack_tokens = pack_tokens
        self.packs_per_step = packs_per_step
        self.max_segments = max_segments
        self.pool = pool
        self.seed = seed
        self._position = 0  # of the next sample to enter the pool, in the endless stream
        self._by_length: list[tuple[int, int]] = []  # (length, -position), ascending
        self._by_age: dict[int, int] = {}  # position -> length, in order of arrival
        self._orders: dict[int, NDArray[np.int64]] = {}

    def _check_fit(self, infos: list[SampleInfo], pack_tokens: int) -> None:
        if not infos:
            raise ValueError("infos=[]: must hold at least one sample. Choose another split.")
        largest = max(range(len(infos)), key=lambda i: self.lengths[i])
        if self.lengths[largest] > pack_tokens:
            count = sum(length > pack_tokens for length in self.lengths)
            info = infos[largest]
            raise ValueError(
                f"data.pack_tokens={pack_tokens}: must hold the largest sample, but {count} are "
                f"larger; {info.key!r} ({info.num_frames}x{info.height}x{info.width}) has "
                f"{self.lengths[largest]} tokens. Use at least {self.lengths[largest]}, or ingest "
                "with a lower ingest.token_cap."
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
        free = self.pack_tokens - self._by_age[oldest]
        pack = [self._take(oldest)]
        while len(pack) < self.max_segments:
            self._refill()
            # Among equal lengths the last tuple below the bound is the oldest sample.
            place = bisect_right(self._by_length, (free, 1))
            if place == 0:
                break
            length, negative = self._by_length[place - 1]
            free -= length
            pack.append(self._take(-negative))
        return pack

    def _take(self, position: int) -> Planned:
        length = self._by_age.pop(position)
        del self._by_length[bisect_right(self._by_length, (length, -position)) - 1]
        return self._locate(position)

    def _refill(self) -> None:
        while len(self._by_age) < self.pool:
            self._insert(self._position)
            self._position += 1

    def _insert(self, position: int) -> None:
        length = self.lengths[self._locate(position).index]
        self._by_age[position] = length
        insort(self._by_length, (length, -position))

    def _locate(self, position: int) -> Planned:
        epoch, place = divmod(position, len(self.lengths))
        if epoch not in self._orders:
            oldest = min(self._by_age, default=position) // len(self.lengths)
            self._orders = {e: o for e, o in self._orders.items() if e >= oldest}
            self._orders[epoch] = self._order(epoch)
        return Planned(int(self._orders[epoch][place]), epoch)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        # Ranking raw Philox words: numpy promises its bit streams for ever, but not permutation().
        words = np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        return np.argsort(words.random_raw(len(self.lengths)), kind="stable")

    def parameters(self) -> dict[str, int]:
        """Return what the plan depends on beside the dataset and the state."""
        return {
            "pack_tokens": self.pack_tokens,
            "packs_per_step": self.packs_per_step,
            "max_segments": self.max_segments,
            "pool": self.pool,
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable state: seed, stream position, and the pool's positions."""
        return {"seed": self.seed, "position": self._position, "pool": list(self._by_age)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken. Raises ValueError on another seed."""
        if state["seed"] != self.seed:
            raise ValueError(
                f"seed={self.seed}: must equal the saved plan's seed={state['seed']}. "
                f"Use seed={state['seed']}, or start a new run."
            )
        self._position = int(state["position"])
        self._by_length, self._by_age = [], {}
        for position in state["pool"]:
            self._insert(int(position))
