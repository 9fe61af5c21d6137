"""How clips are drawn: solvers against known flows, and packs that change nothing."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from models.objective import Method, Walk
from models.objectives.flow import sampler_times
from models.pack import TokenPack, join
from models.sampling import METHODS, Guidance, Order, _bend, draw, flow_edit, staircase, turning
from models.spans import SegmentSpans, lay_spans

NOISE = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
METHOD = pytest.mark.parametrize("method", list(Method))


def clip(rows: int, captions: int = 1) -> TokenPack:
    """Return a pack of one segment."""
    return TokenPack(
        latent=torch.zeros(rows, 4),
        valid=torch.ones(rows, 4, dtype=torch.bool),
        positions=torch.zeros(rows, 3, dtype=torch.long),
        place=torch.zeros(rows, 18),
        segment=torch.zeros(rows, dtype=torch.long),
        lengths=[rows],
        fps=torch.zeros(1),
        caption=torch.ones(captions, 5),
        caption_lengths=[captions],
    )


def follow(walk: Walk, velocity: Callable[[Tensor, float], Tensor]) -> tuple[Tensor, int]:
    """Answer a walk until it ends; return where it ends and how often it asked."""
    asked, answer = 0, None
    while True:
        try:
            x, t = walk.send(answer)
        except StopIteration as end:
            return end.value, asked
        answer, asked = velocity(x, t), asked + 1


@METHOD
@pytest.mark.parametrize("shift", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_every_method_follows_a_straight_flow_exactly(
    method: Method, steps: int, shift: float
) -> None:
    data = torch.linspace(-2, 2, 24).view(6, 4)
    times = sampler_times(steps, shift)
    end, asked = follow(METHODS[method](NOISE, times), lambda x, t: data - NOISE)
    torch.testing.assert_close(end, data)
    assert asked == (2 * steps - 1 if method is Method.heun else steps)


@METHOD
def test_errors_of_a_linear_field_shrink_at_the_order_of_the_method(method: Method) -> None:
    # dx/dt = a x has x(1) = x(0) e^a: halving the step halves an error of order one.
    errors = []
    for steps in (32, 64, 128):
        walk = METHODS[method](torch.ones(1, 1, dtype=torch.float64), sampler_times(steps, 1.0))
        end, _ = follow(walk, lambda x, t: -0.8 * x)
        errors.append(abs(end.item() - math.exp(-0.8)))
    ratios = [errors[0] / errors[1], errors[1] / errors[2]]
    assert all(1.8 < r < 2.2 if method is Method.euler else 3 < r < 5 for r in ratios)


def test_heun_takes_the_mean_of_both_ends_and_ends_with_a_straight_step() -> None:
    # dx/dt = x in two steps of 1/2: 1 + h + h^2 / 2, then 1 + h.
    end, _ = follow(METHODS[Method.heun](torch.ones(1, 1), [0.0, 0.5, 1.0]), lambda x, t: x)
    assert end.item() == pytest.approx(1.625 * 1.5)


@pytest.mark.parametrize(("now", "then"), [(0.0, 0.1), (0.3, 0.35), (0.6, 0.99)])
def test_a_step_of_multistep_integrates_data_that_moves_evenly(now: float, then: float) -> None:
    integral, _ = quad(lambda t: (t - now) / (1 - t) ** 2, now, then)
    assert _bend(now, then) == pytest.approx((1 - then) * integral, rel=1e-6)
    assert _bend(now, 1.0) == pytest.approx(_bend(now, 1 - 1e-9), abs=1e-6)


def mixture_velocity(x: Tensor, t: float) -> Tensor:
    """Return the exact velocity of rows whose data is one of eight points, blurred by 0.1."""
    points = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variance = (t * 0.1) ** 2 + (1 - t) ** 2
    gap = x.unsqueeze(1) - t * points  # (S, 8, V)
    share = (-gap.square().sum(-1) / (2 * variance)).softmax(-1).unsqueeze(-1)
    bend = (t * 0.1**2 - (1 - t)) / variance
    return (share * (points + bend * gap)).sum(1)


def test_multistep_reaches_the_error_of_heun_with_six_tenths_of_its_looks() -> None:
    noise = torch.randn(200, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact, _ = follow(METHODS[Method.heun](noise, sampler_times(400, 1.0)), mixture_velocity)
    found = {}
    for method, steps in ((Method.heun, 12), (Method.multistep, 13), (Method.euler, 23)):
        walk = METHODS[method](noise, sampler_times(steps, 1.0))
        end, asked = follow(walk, mixture_velocity)
        found[method] = (end - exact).square().mean().sqrt().item(), asked
    assert found[Method.multistep][1] <= 0.6 * found[Method.heun][1]
    assert found[Method.multistep][0] <= found[Method.heun][0]
    assert found[Method.heun][0] < 0.7 * found[Method.euler][0]


class Counting:
    """A network that says the number of caption tokens of each row, and notes its packs."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, pack: TokenPack, x: Tensor, t: Tensor) -> Tensor:
        assert len(t) == pack.num_spans
        assert len(pack.caption) == sum(pack.caption_lengths)
        self.rows.append(len(x))
        counts = torch.tensor(pack.caption_lengths, dtype=torch.float32)
        slope = counts[pack.segment] + t[pack.span]  # another velocity at every time
        return slope.unsqueeze(-1) + 0 * x


def order(
    rows: int, steps: int, method: Method = Method.euler, guidance: Guidance | None = None
) -> Order:
    """Return an order of rows of zeros with three caption tokens."""
    walk = METHODS[method](torch.zeros(rows, 4), sampler_times(steps, 1.0))
    pack, against = clip(rows, 3), clip(rows, 0) if guidance else None
    return Order(walk, pack, against, guidance or Guidance())


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 3.0), (0.0, 0.0), (2.0, 6.0)])
def test_guidance_extrapolates_in_one_forward_for_both(weight: float, expected: float) -> None:
    network = Counting()
    ((_, rows),) = draw(network, [order(2, 2, guidance=Guidance(weight))], 100)
    torch.testing.assert_close(rows, torch.full((2, 4), expected + 0.25))  # t is 0, then 1/2
    assert network.rows == ([2, 2] if weight == 1.0 else [4, 4])


def test_guidance_acts_inside_its_range_alone() -> None:
    network = Counting()
    guidance = Guidance(2.0, low=0.2, high=0.5)
    ((_, rows),) = draw(network, [order(2, 4, guidance=guidance)], 100)
    assert network.rows == [2, 4, 4, 2]  # at 0, 1/4, 1/2 and 3/4
    torch.testing.assert_close(rows, torch.full((2, 4), (3 + 6 + 6 + 3) / 4 + 0.375))


def test_what_guides_away_without_a_caption_lies_last_and_is_said_to() -> None:
    found: list[tuple[list[int], int, tuple[int, ...]]] = []
    network = Counting()

    def watched(pack: TokenPack, x: Tensor, t: Tensor) -> Tensor:
        found.append((pack.caption_lengths, pack.lone, pack.twins))
        return network(pack, x, t)

    negative = replace(order(4, 1, guidance=Guidance(2.0)), against=clip(4, 2))
    list(draw(watched, [negative, order(2, 1, guidance=Guidance(2.0)), order(3, 1)], 100))
    # By size: of two, three and four rows; then what guides that of four away, and that of two.
    assert found == [([3, 3, 3, 2, 0], 1, (2, 0))]
    unheard = replace(order(2, 1), pack=clip(2, 0))
    list(draw(watched, [unheard], 100))
    assert found[1] == ([0], 1, ())
    # Which velocity is whose does not depend on where it lies: slopes of 3 - 2, 3 - 0 and 3.
    ends = dict(draw(Counting(), [
        replace(order(4, 1, guidance=Guidance(2.0)), against=clip(4, 2)),
        order(2, 1, guidance=Guidance(2.0)), order(3, 1),
    ], 100))  # fmt: skip
    assert [ends[number][0, 0].item() for number in range(3)] == [4, 6, 3]


def test_cfg_zero_scales_what_it_pushes_away_from_onto_the_captioned_velocity() -> None:
    toward, away = torch.tensor([[2.0, 1.0, 9.0]]), torch.tensor([[4.0, 0.0, 5.0]])
    valid = torch.tensor([[True, True, False]])
    # 8 / 16 of away is nearest to toward over what is valid; weight 3 goes on from there.
    expected = torch.tensor([[2.0, 3.0, 22.0]])
    torch.testing.assert_close(Guidance(3.0, zero_star=True).apply(toward, away, valid), expected)


def test_company_changes_no_clip_and_no_pack_is_larger_than_asked() -> None:
    def orders() -> list[Order]:
        return [
            order(4, 3),
            order(2, 5, Method.heun, Guidance(2.0)),
            order(7, 1, Method.multistep),
            order(3, 9, Method.multistep, Guidance(3.0, high=0.4)),
            order(20, 2),
            order(1, 4),
        ]

    alone = {}
    for number, one in enumerate(orders()):
        ((_, alone[number]),) = draw(Counting(), [one], 1)
    for budget in (12, 1000):
        network = Counting()
        found = dict(draw(network, orders(), budget))
        assert found.keys() == alone.keys()
        for number, rows in found.items():
            assert torch.equal(rows, alone[number])
        assert max(network.rows) <= max(budget, 20)
    assert network.rows[0] == 4 + 2 * 2 + 7 + 2 * 3 + 20 + 1
    assert len(network.rows) == 9  # as many as the longest of them asks for


def test_tokens_that_moved_are_told_once_however_guided() -> None:
    told: list[int] = []
    list(draw(Counting(), [order(4, 3), order(2, 1, guidance=Guidance(2.0))], 100, told.append))
    assert told == [6, 4, 4]


def test_joined_packs_count_segments_and_captions_on() -> None:
    pack = join([clip(2, 3), clip(1, 0), clip(4, 1)])
    assert pack.segment.tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert (pack.lengths, pack.caption_lengths) == ([2, 1, 4], [3, 0, 1])
    assert len(pack.caption) == 4
    assert len(pack.fps) == 3


def test_given_tokens_stand_clean_at_their_time_and_are_never_moved() -> None:
    spans = SegmentSpans(torch.tensor([0, 1, 1, 0]), (False, True))
    pack = replace(clip(4, 3), spans=lay_spans([spans]), latent=torch.full((4, 4), 7.0))
    seen: list[tuple[Tensor, Tensor]] = []

    def network(seen_pack: TokenPack, x: Tensor, t: Tensor) -> Tensor:
        seen.append((x[:, 0], t))
        return torch.ones_like(x)

    walk = METHODS[Method.heun](torch.zeros(4, 4), [0.0, 0.5, 1.0])
    found = dict(draw(network, [order(2, 3), Order(walk, pack)], 100))
    assert found[1][:, 0].tolist() == [1.0, 7.0, 7.0, 1.0]
    x, t = seen[0]
    assert x.tolist() == [0.0, 0.0, 0.0, 7.0, 7.0, 0.0]
    assert t.tolist() == [0.0, 0.0, 1.0]
    assert [t.tolist()[1:] for _, t in seen] == [[0.0, 1.0], [0.5, 1.0], [0.5, 1.0]]


def test_a_flow_edit_moves_its_source_by_the_difference_of_two_velocities() -> None:
    source, noises = torch.full((2, 4), 5.0), torch.zeros(6, 4)
    seen: list[Tensor] = []

    def answer(x: Tensor, t: float) -> Tensor:
        seen.append(x)
        return torch.cat([torch.ones(2, 4), torch.full((2, 4), 4.0)])

    end, asked = follow(flow_edit(noises, source, [0.5, 0.75, 1.0]), answer)
    torch.testing.assert_close(end, source + 0.5 * 3)
    assert asked == 2
    # The second look is at 3/4: noised source, and the edit so far beside it.
    assert seen[1][:, 0].tolist() == [3.75, 3.75, 4.5, 4.5]


def test_a_loop_is_seen_from_another_frame_at_each_look() -> None:
    start = torch.arange(6.0).unsqueeze(-1)  # three frames of two rows
    seen: list[list[float]] = []

    def answer(x: Tensor, t: float) -> Tensor:
        seen.append(x[:, 0].tolist())
        return torch.zeros_like(x)

    end, _ = follow(turning(METHODS[Method.euler](start, [0.0, 0.3, 0.6, 1.0]), 2), answer)
    assert seen == [[0, 1, 2, 3, 4, 5], [4, 5, 0, 1, 2, 3], [2, 3, 4, 5, 0, 1]]
    assert torch.equal(end, start)
    plain, _ = follow(METHODS[Method.heun](start, [0.0, 0.3, 1.0]), lambda x, t: x * t)
    turned, _ = follow(turning(METHODS[Method.heun](start, [0.0, 0.3, 1.0]), 2), lambda x, t: x * t)
    torch.testing.assert_close(turned, plain)


def stairs(
    steps: int, lag: int, method: Method = Method.euler, guidance: Guidance | None = None
) -> Order:
    """Return an order of three parts of two rows, one behind the other, and two rows that stay."""
    rows = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    spans = lay_spans([SegmentSpans(rows, (False, False, False, False))])
    parts = [(rows == number).nonzero().flatten() for number in range(3)]
    walks = [METHODS[method](torch.zeros(2, 4), sampler_times(steps, 1.0)) for _ in parts]
    x = torch.full((8, 4), 5.0)
    pack = replace(clip(8, 3), spans=spans)
    against = replace(clip(8, 0), spans=spans) if guidance else None
    walk = staircase(x, parts, walks, lag, [0.9])
    return Order(walk, pack, against, guidance or Guidance())


class Noting(Counting):
    """Notes the times of spans, and the first value of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[list[float]] = []
        self.values: list[list[float]] = []

    def __call__(self, pack: TokenPack, x: Tensor, t: Tensor) -> Tensor:
        self.times.append(t.tolist())
        self.values.append(x[:, 0].tolist())
        return super().__call__(pack, x, t)


def test_each_part_of_a_staircase_goes_its_own_way_behind_the_one_before() -> None:
    network = Noting()
    ((_, end),) = draw(network, [stairs(steps=2, lag=3)], 100)
    expected = [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0.5, 0]]
    expected += [[1, 1, 0], [1, 1, 0], [1, 1, 0.5]]
    assert [times[:3] for times in network.times] == expected
    assert all(times[3] == pytest.approx(0.9) for times in network.times)
    # Slopes of 3 and 3.5 over half a step each; what stays is looked at and returned as it was.
    torch.testing.assert_close(end, torch.tensor([3.25] * 6 + [5.0] * 2).view(8, 1).expand(8, 4))
    assert network.values[1] == [1.5, 1.5, 0, 0, 0, 0, 5, 5]
    assert network.values[-1] == [3.25] * 4 + [1.5, 1.5, 5, 5]


@METHOD
def test_parts_without_a_lag_are_the_clip_at_one_time(method: Method) -> None:
    ((_, parts),) = draw(Counting(), [stairs(4, 0, method)], 100)
    ((_, whole),) = draw(Counting(), [order(2, 4, method)], 100)
    assert torch.equal(parts[:6], whole.repeat(3, 1))


def test_guidance_acts_on_the_parts_inside_its_range_alone() -> None:
    network = Counting()
    guidance = Guidance(2.0, low=0.4, high=0.6)
    ((_, end),) = draw(network, [stairs(2, 1, guidance=guidance)], 100)
    # Slope 3 at 0, and at 1/2 in place of 3.5 twice 3.5 minus the uncaptioned 0.5.
    torch.testing.assert_close(end[:6], torch.full((6, 4), (3.0 + 6.5) / 2))
    assert network.rows == [8, 16, 16, 16]


def test_a_staircase_changes_nothing_beside_it() -> None:
    ((_, alone),) = draw(Counting(), [stairs(3, 2, guidance=Guidance(2.0))], 100)
    ((_, plain),) = draw(Counting(), [order(4, 5)], 100)
    orders = [order(4, 5), stairs(3, 2, guidance=Guidance(2.0)), stairs(1, 1)]
    found = dict(draw(Counting(), orders, 100))
    assert torch.equal(found[1], alone)
    assert torch.equal(found[0], plain)
