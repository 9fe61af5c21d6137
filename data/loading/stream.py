"""The endless order of samples: one permutation per pass of each source, interleaved by weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a larger source each place of a pass is worked out alone: an array of all would cost each rank
# memory, and each start time, in proportion to the source.
SCATTERED_FROM = 2**17
ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Planned:
    """One planned sample: its number in the index, and the pass that this visit belongs to."""

    index: int
    visit: int


@dataclass(frozen=True, slots=True)
class Span:
    """One source of a mixture: rows ``start`` to ``stop`` of the index, and its weight."""

    start: int
    stop: int
    weight: float


class Stream:
    """An endless stream of sample numbers whose state is two integers a source.

    Each source is met in one permutation per pass, one pass after another. Sources take turns by
    tokens: the next sample comes from the source that is behind its share and would finish it first
    (WF2Q, Bennett and Zhang 1996, doi:10.1109/INFCOM.1996.497885), so that after any number of
    samples a source is at most one of its own samples ahead of ``weight * tokens``.

    shards: the shard number of every sample, with ``window`` > 0: shards begin in a new order each
        pass, and a shard's samples are spread over the time in which ``window`` shards begin, so
        that a reader needs ``window + 1`` shards at once. Otherwise all samples are mixed; those of
        a source above ``SCATTERED_FROM`` by :func:`scattered`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        spans: Sequence[Span],
        seed: int,
        window: int = 0,
        shards: NDArray[np.int64] | None = None,
    ) -> None:
        assert not window or shards is not None
        self.lengths = lengths
        self.spans = list(spans)
        self.seed = seed
        self.window = window
        self._shards = shards
        total = sum(span.weight for span in spans)
        self._shares = [span.weight / total for span in spans]
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._keys: dict[tuple[int, int], list[int]] = {}
        self._start([[0, 0] for _ in spans])

    @property
    def scatters(self) -> bool:
        """Whether the order of a source is that of :func:`scattered`."""
        return any(map(self._is_scattered, self.spans))

    def _is_scattered(self, span: Span) -> bool:
        return not self.window and span.stop - span.start > SCATTERED_FROM

    def _start(self, drawn: list[list[int]]) -> None:
        self._drawn = drawn  # of each source: samples and tokens drawn so far
        self._tokens = sum(count for _, count in drawn)
        self._next = [self._at(source, place) for source, (place, _) in enumerate(drawn)]

    def draw(self) -> tuple[int, Planned]:
        """Return the next sample and the code of its place, which :meth:`locate` understands."""
        source = self._choose() if len(self.spans) > 1 else 0
        planned = self._next[source]
        position = self._drawn[source][0]
        length = self.lengths[planned.index]
        self._drawn[source] = [position + 1, self._drawn[source][1] + length]
        self._tokens += length
        self._next[source] = self._at(source, position + 1)
        return position * len(self.spans) + source, planned

    def _choose(self) -> int:
        """Return the source with the earliest virtual finish among those not ahead of their share.

        Plain float arithmetic on integers, which IEEE 754 fixes: every machine chooses alike.
        """

        def turn(source: int) -> tuple[bool, float, int]:
            served, share = self._drawn[source][1], self._shares[source]
            finish = (served + self.lengths[self._next[source].index]) / share
            return served / share > self._tokens, finish, source

        return min(range(len(self.spans)), key=turn)

    def locate(self, code: int) -> Planned:
        """Return the sample at a place that ``draw`` once returned."""
        position, source = divmod(code, len(self.spans))
        return self._at(source, position)

    def _at(self, source: int, position: int) -> Planned:
        span = self.spans[source]
        number, place = divmod(position, span.stop - span.start)
        if self._is_scattered(span):
            if (source, number) not in self._keys:
                words = self._generator(source, number).random_raw(ROUNDS)
                self._keys[source, number] = [int(word) for word in words]
            keys = self._keys[source, number]
            return Planned(span.start + scattered(place, span.stop - span.start, keys), number)
        held = self._orders.get(source)
        if held is None or held[0] != number:
            held = self._orders[source] = (number, self._order(source, number))
        return Planned(span.start + int(held[1][place]), number)

    def _order(self, source: int, number: int) -> NDArray[np.int64]:
        """Return the permutation of a source in one of its passes."""
        span = self.spans[source]
        count = span.stop - span.start
        # Ranking raw Philox words: numpy promises its bit streams for ever, but not permutation().
        generator = self._generator(source, number)
        words = generator.random_raw(count)
        if not self.window:
            return np.argsort(words, kind="stable")
        assert self._shards is not None
        found, numbers = np.unique(self._shards[span.start : span.stop], return_inverse=True)
        places = np.argsort(np.argsort(generator.random_raw(len(found)), kind="stable"))
        # Words become the same floats in [0, 1] on every machine: a division by a power of two.
        return np.argsort(places[numbers] + self.window * (words / 2.0**64), kind="stable")

    def _generator(self, source: int, number: int) -> np.random.Philox:
        """Return the random words of a source in one of its passes."""
        return np.random.Philox(
            key=np.array([self.seed, number], np.uint64),
            counter=np.array([0, 0, 0, source], np.uint64),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable state: samples and tokens drawn from each source."""
        return {
            "position": sum(position for position, _ in self._drawn),
            "sources": [list(drawn) for drawn in self._drawn],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        # States from before mixtures have no "sources"; with one source its tokens decide nothing.
        drawn = state.get("sources", [[state["position"], 0]])
        assert len(drawn) == len(self.spans)
        self._start([[int(position), int(count)] for position, count in drawn])


def scattered(place: int, count: int, keys: Sequence[int]) -> int:
    """Return where a keyed permutation of ``range(count)`` sends a place, by arithmetic alone.

    A Feistel network permutes the next power of four; places that it sends beyond ``count`` are
    sent again, until they are not (Black and Rogaway 2002, doi:10.1007/3-540-45760-7_9).
    """
    half = (max(2, (count - 1).bit_length()) + 1) // 2
    mask, whole = (1 << half) - 1, (1 << 64) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            # The finisher of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
            word = (right + key) & whole
            word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & whole
            word = ((word ^ word >> 27) * 0x94D049BB133111EB) & whole
            left, right = right, left ^ (word ^ word >> 31) & mask
        place = left << half | right
        if place < count:
            return place
