"""How clips are drawn: walks that ask for velocities, and packed forwards that answer many at once.

A walk is a generator: it yields (x, t), is sent the velocity there, and returns the clean rows. So
each clip of a pack has its own times, method and number of steps, and a clip that has arrived makes
room for the next one: what is drawn beside it changes nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from math import log

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.objective import Method, Predict, Walk
from models.pack import TokenPack, join

DATA_TIME = 1.0


def euler(x: Float[Tensor, "S V"], times: Sequence[float]) -> Walk:
    """Take straight steps: one evaluation each."""
    for now, then in pairwise(times):
        v = yield x, now
        x = x + (then - now) * v
    return x


def heun(x: Float[Tensor, "S V"], times: Sequence[float]) -> Walk:
    """Take the mean of a step's two ends, the last step straight (Karras et al. 2022).

    Two evaluations a step: order two.
    """
    for now, then in pairwise(times):
        v = yield x, now
        if then < 1.0:
            ahead = yield x + (then - now) * v, then
            v = (v + ahead) / 2
        x = x + (then - now) * v
    return x


def multistep(x: Float[Tensor, "S V"], times: Sequence[float]) -> Walk:
    """Go on with what the last step saw, and mend that step by what this one sees: order two.

    One evaluation a step. The data that a velocity points at, x_1 = x + (1 - t) v, hardly changes
    along a path, so it is taken as linear in t through the last two evaluations, and the flow is
    then solved exactly for the step behind (corrector) and the one ahead (predictor), as UniPC does
    in log-SNR (Zhao et al. 2023). In t nothing is infinite at either end.
    """
    before: tuple[float, Tensor, Tensor, Tensor] | None = None
    for now, then in pairwise(times):
        v = yield x, now
        data = x + (1.0 - now) * v
        ahead: Tensor | float = 0.0
        if before is not None:
            since, behind, velocity, seen = before
            slope = (data - seen) / (now - since)
            x = behind + (now - since) * velocity + _bend(since, now) * slope
            v = (data - x) / (1.0 - now)
            ahead = _bend(now, then) * slope
        before = now, x, v, data
        x = x + (then - now) * v + ahead
    return x


def _bend(now: float, then: float) -> float:
    """Return what a unit slope of the data adds in a step: (1 - b) int_a^b (t - a) / (1 - t)^2."""
    left, right = 1.0 - now, 1.0 - then
    if right <= 0.0:
        return left
    return left - right - right * log(left / right)


def flow_edit(
    noises: Float[Tensor, "N*S V"], source: Float[Tensor, "S V"], times: Sequence[float]
) -> Walk:
    """Move clean rows by what two captions differ in (FlowEdit, Kulikov et al. 2024).

    noises: another one for each step, used again from the first where there are fewer. Asks for two
    segments at once, the noised source under its own caption and the noised edit under the other.
    """
    x, draws = source, noises.split(len(source))
    for number, (now, then) in enumerate(pairwise(times)):
        noised = torch.lerp(draws[number % len(draws)], source, now)
        away, toward = (yield torch.cat([noised, x + noised - source]), now).chunk(2)
        x = x + (then - now) * (toward - away)
    return x


def turning(walk: Walk, rows: int) -> Walk:
    """Turn a loop by a frame of so many rows more at each look, so that its seam stays nowhere."""
    answer, turn = None, 0
    while True:
        try:
            x, t = walk.send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            rest: Tensor = end.value
            return rest
        velocity = yield x.roll(turn, 0), t
        answer, turn = velocity.roll(-turn, 0), (turn + rows) % len(x)


def staircase(
    x: Float[Tensor, "S V"],
    parts: Sequence[Int[Tensor, " R"]],
    walks: Sequence[Walk],
    lag: int,
    rest: Sequence[float] = (),
) -> Walk:
    """Let parts of a clip go their own ways, each ``lag`` looks behind the one before it.

    Frames of a model that learned by diffusion forcing (Chen et al. 2024) may each have a time of
    their own: those to come are noise yet where the first ones are clean. Asks for one time a part,
    then for ``rest``.

    x: rows as they stand where no part moves them. parts: rows of each part, which is a span.
    walks: of each part. rest: times of the spans beyond the parts, which stay where they are.
    """
    seen = [next(walk) for walk in walks]
    going, look = dict(enumerate(walks)), 0
    while going:
        for rows, (values, _) in zip(parts, seen, strict=True):
            x = x.index_copy(0, rows, values)
        velocity = yield x, [*(_one_time(t) for _, t in seen), *rest]
        for number in [number for number in going if number * lag <= look]:
            try:
                seen[number] = going[number].send(velocity[parts[number]])
            except StopIteration as end:
                seen[number] = end.value, DATA_TIME
                del going[number]
        look += 1
    for rows, (values, _) in zip(parts, seen, strict=True):
        x = x.index_copy(0, rows, values)
    return x


def _one_time(t: float | list[float]) -> float:
    assert not isinstance(t, list), "parts of a clip have one time each"
    return t


METHODS: dict[Method, Callable[[Tensor, Sequence[float]], Walk]] = {
    Method.euler: euler,
    Method.heun: heun,
    Method.multistep: multistep,
}


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022): how far a clip is pushed to its caption.

    weight: v = w + weight (v_caption - w), with w the velocity without caption, or with the
        negative's; 1 leaves it out. low, high: the times at which it acts (Kynkaanniemi et al.
        2024). zero_star: w is scaled to lie as near to v_caption as it can (CFG-Zero*, Fan et al.
        2025).
    """

    weight: float = 1.0
    low: float = 0.0
    high: float = 1.0
    zero_star: bool = False

    def acts(self, t: float) -> bool:
        """Tell whether the second velocity is needed at a time."""
        return self.weight != 1.0 and self.low <= t <= self.high

    def apply(
        self,
        toward: Float[Tensor, "S V"],
        away: Float[Tensor, "S V"],
        valid: Bool[Tensor, "S V"],
    ) -> Float[Tensor, "S V"]:
        """Return the guided velocity; values that carry no loss do not weigh in its scale."""
        if self.zero_star:
            seen = away * valid
            away = away * ((toward * seen).sum() / seen.square().sum().clamp(min=1e-12))
        return away + self.weight * (toward - away)


@dataclass(frozen=True)
class Order:
    """One clip to be drawn.

    pack: its segment, or several that its walk asks for at once. What its spans give is held as
    ``latent`` has it. against: the same without captions, or with the negative one; None where
    nothing guides.
    """

    walk: Walk
    pack: TokenPack
    against: TokenPack | None = None
    guidance: Guidance = field(default_factory=Guidance)

    @property
    def num_tokens(self) -> int:
        """Most rows that it adds to a forward."""
        return self.pack.num_tokens * (1 if self.against is None else 2)


class _Live:
    """An order on its way: where its walk stands."""

    def __init__(self, number: int, order: Order) -> None:
        self.number, self.order = number, order
        self.arrived = False
        spans = order.pack.spans
        self._given = None if spans is None else spans.given[spans.rows].unsqueeze(-1)  # (S, 1)
        self.advance(None)

    def advance(self, velocity: Tensor | None) -> None:
        """Send the walk a velocity; what it asks next, or its end, becomes x and t."""
        try:
            # The first send starts a generator and must be None.
            self.x, self.t = self.order.walk.send(velocity)  # type: ignore[arg-type]
        except StopIteration as end:
            self.x, self.arrived = end.value, True
        if self._given is not None:
            self.x = torch.where(self._given, self.order.pack.latent, self.x)

    @property
    def times(self) -> Float[Tensor, " T"]:
        """The time of each span."""
        if isinstance(self.t, list):
            return torch.tensor(self.t)
        return torch.full((self.order.pack.num_spans,), self.t)

    @property
    def guided(self) -> bool:
        """Whether two velocities are needed here."""
        times = self.t if isinstance(self.t, list) else [self.t]
        return self.order.against is not None and any(map(self.order.guidance.acts, times))

    @property
    def against(self) -> TokenPack:
        """What guides it away."""
        assert self.order.against is not None
        return self.order.against

    def guide(self, toward: Float[Tensor, "S V"], away: Float[Tensor, "S V"]) -> Tensor:
        """Return the guided velocity, span by span where each has a time of its own."""
        guidance, valid = self.order.guidance, self.order.pack.valid
        if not isinstance(self.t, list):
            return guidance.apply(toward, away, valid)
        velocity = toward.clone()
        for number, time in enumerate(self.t):
            if guidance.acts(time):
                rows = self.order.pack.span == number
                velocity[rows] = guidance.apply(toward[rows], away[rows], valid[rows])
        return velocity

    @property
    def size(self) -> tuple[int, int]:
        """Equal sizes beside each other share one call of attention."""
        return self.order.pack.num_tokens, len(self.order.pack.caption)


def draw(
    network: Predict,
    orders: Sequence[Order],
    pack_tokens: int,
    told: Callable[[int], None] = lambda tokens: None,
) -> Iterator[tuple[int, Float[Tensor, "S V"]]]:
    """Yield (number, clean rows) of each order as it arrives.

    Each forward holds as many clips as fit in ``pack_tokens`` rows, in the order given, and at
    least one; captioned and uncaptioned rows lie in the same one. told: called with the tokens that
    a forward has moved one evaluation on, each clip's once.
    """
    waiting = deque(enumerate(orders))
    live: list[_Live] = []
    joined: tuple[list[tuple[int, bool]], TokenPack] | None = None
    while waiting or live:
        room = pack_tokens - sum(one.order.num_tokens for one in live)
        while waiting and (not live or waiting[0][1].num_tokens <= room):
            live.append(_Live(*waiting.popleft()))
            room -= live[-1].order.num_tokens
        live.sort(key=lambda one: (one.size, one.number))
        moving = [one for one in live if not one.arrived]
        if moving:
            inside = [(one.number, one.guided) for one in moving]
            if joined is None or joined[0] != inside:
                joined = inside, _together(moving)
            with torch.no_grad():
                _advance(network, joined[1], moving)
            told(sum(one.order.pack.num_tokens for one in moving))
        for one in live:
            if one.arrived:
                yield one.number, one.x
        live = [one for one in live if not one.arrived]


def _together(live: list[_Live]) -> TokenPack:
    """Return one pack of all captioned segments, then those that guide them away."""
    guided = _guided(live)
    pack = join([one.order.pack for one in live] + [one.against for one in guided])
    heard = [number for number, count in enumerate(pack.caption_lengths, 1) if count > 1]
    counts = [len(one.order.pack.lengths) for one in live]
    ends = zip(live, counts, accumulate(counts), strict=True)
    numbers = {one.number: range(end - count, end) for one, count, end in ends}
    twins = tuple(number for one in guided for number in numbers[one.number])
    return replace(pack, lone=len(pack.lengths) - max(heard, default=0), twins=twins)


def _guided(live: list[_Live]) -> list[_Live]:
    """Return what needs a second velocity, that without a caption last, where much is saved."""
    guided = [one for one in live if one.guided]
    return sorted(guided, key=lambda one: max(one.against.caption_lengths) <= 1)


def _advance(network: Predict, pack: TokenPack, live: list[_Live]) -> None:
    """Evaluate once, and send every walk its velocity."""
    guided = _guided(live)
    seen = [*live, *guided]
    x = torch.cat([one.x for one in seen])
    t = torch.cat([one.times for one in seen]).to(x.device)
    moved = network(pack, x, pack.times(t))
    velocities = torch.split(moved, [len(one.x) for one in seen])
    away = dict(zip((one.number for one in guided), velocities[len(live) :], strict=True))
    for one, velocity in zip(live, velocities[: len(live)], strict=True):
        one.advance(one.guide(velocity, away[one.number]) if one.number in away else velocity)
