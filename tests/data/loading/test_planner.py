"""The plan: every sample once per epoch, resumable anywhere, little padding, balanced ranks."""

import json
from collections import Counter

import numpy as np
import pytest

from data.dataset.tokens import grid, shape_name, tokens
from data.loading.accounting import Accounting
from data.loading.planner import PackPlanner, Planned, deal, pack_cost, shard_numbers
from data.loading.stream import Span, Stream
from tests.data.conftest import info_of

CELL = (4, 16, 16)
GOLDEN_PLAN = [[(3, 0), (0, 0)], [(2, 0), (1, 0), (0, 1)], [(4, 0), (3, 1), (2, 1)]]


def lengths_as_infos(lengths):
    """Give one clip of each token length: a one-frame strip of that many cells."""
    return [info_of(f"s{i}", "image", (1, 16, 16 * n)) for i, n in enumerate(lengths)]


def planner_of(infos, pack_tokens=1024, packs_per_step=2, max_segments=64, pool=32, seed=1, **more):
    return PackPlanner(infos, CELL, pack_tokens, packs_per_step, max_segments, pool, seed, **more)


def demo_lengths(count, seed=0):
    return np.random.default_rng(seed).integers(60, 513, count).tolist()


def native_infos(count):
    """Give the mixture of docs: 60 % videos, 144p to 1080p, 1 to 20 s, usual aspect ratios."""
    rng = np.random.default_rng(0)
    aspects = np.array([16 / 9, 9 / 16, 4 / 3, 1.0, 21 / 9])
    infos = []
    for i in range(count):
        short = int(rng.choice([144, 240, 360, 480, 720, 1080], p=[0.1, 0.2, 0.25, 0.2, 0.15, 0.1]))
        aspect = float(rng.choice(aspects, p=[0.5, 0.2, 0.12, 0.08, 0.1]))
        height, width = (short, short * aspect) if aspect >= 1 else (short / aspect, short)
        frames = int(24 * np.exp(rng.uniform(0, np.log(20)))) if rng.random() < 0.6 else 1
        shape = (frames, int(height), int(width))
        infos.append(info_of(f"n{i}", "video" if frames > 1 else "image", shape))
    return infos


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((1, 16, 16), 1),
        ((1, 17, 16), 2),
        ((5, 16, 16), 2),
        ((6, 16, 16), 3),
        ((17, 180, 320), 1200),
    ],
)
def test_tokens_follow_the_formula_of_the_readme(shape, count):
    assert tokens(*shape, CELL) == count


@pytest.mark.parametrize("pool", [1, 7, 64, 300])
@pytest.mark.parametrize("in_order", [0.0, 0.5, 1.0])
def test_every_sample_comes_exactly_once_per_epoch(pool, in_order):
    infos = lengths_as_infos(demo_lengths(101))
    planner = planner_of(infos, pool=pool, in_order=in_order)
    visits = Counter()
    while min(planner.state_dict()["pool"], default=0) < 2 * 101:
        visits.update(p for pack in planner.next_step() for p in pack)
    complete = range(min(planner.state_dict()["pool"]) // 101)
    assert len(complete) >= 2
    assert set(visits.values()) == {1}
    for epoch in complete:
        assert {p.index for p in visits if p.visit == epoch} == set(range(101))


def test_epochs_have_different_orders_and_seeds_have_different_plans():
    infos = lengths_as_infos([100] * 50)
    first = [p for _ in range(5) for pack in planner_of(infos).next_step() for p in pack]
    other = [p for _ in range(5) for pack in planner_of(infos, seed=2).next_step() for p in pack]
    assert first != other
    planner = planner_of(infos, pool=1)
    flat = [p for _ in range(10) for pack in planner.next_step() for p in pack]
    orders = [[p.index for p in flat if p.visit == epoch] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_the_plan_of_a_seed_never_changes():
    """Guards the promise that old runs resume: these numbers may not follow a numpy release."""
    planner = planner_of(lengths_as_infos([300, 500, 200, 700, 100]), packs_per_step=1, pool=3)
    plan = [[(p.index, p.visit) for p in planner.next_step()[0]] for _ in range(3)]
    assert plan == GOLDEN_PLAN


def test_a_restored_plan_goes_on_as_if_nothing_happened_at_every_step():
    infos = lengths_as_infos(demo_lengths(60))
    straight = planner_of(infos)
    states, steps = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(straight.state_dict())))
        steps.append(straight.next_step())
    for place in range(0, 40, 3):
        resumed = planner_of(infos)
        resumed.load_state_dict(states[place])
        assert [resumed.next_step() for _ in range(40 - place)] == steps[place:]


def test_states_from_before_mixtures_go_on():
    infos = lengths_as_infos(demo_lengths(60))
    straight, resumed = planner_of(infos), planner_of(infos)
    for _ in range(7):
        straight.next_step()
    state = straight.state_dict()
    resumed.load_state_dict({name: state[name] for name in ("seed", "position", "pool")})
    assert [resumed.next_step() for _ in range(9)] == [straight.next_step() for _ in range(9)]
    assert set(planner_of(infos).parameters()) == {
        "pack_tokens",
        "packs_per_step",
        "max_segments",
        "pool",
        "seed",
    }


def test_packs_filled_in_order_spread_large_clips_over_the_steps_of_a_run():
    """With the largest first, the first steps hold more tokens a sample than the set does."""
    infos, first = native_infos(3000), {}
    for in_order in (0.0, 0.75):
        planner = planner_of(infos, 1_300_000, 4, 4096, 256, in_order=in_order)
        steps = [planner.next_step() for _ in range(8)]
        lengths = [planner.lengths[p.index] for step in steps for pack in step for p in pack]
        first[in_order] = np.mean(lengths) / np.mean(planner.lengths)
    assert first[0.0] > 1.3
    assert abs(first[0.75] - 1) < 0.15


def test_packs_filled_in_order_pad_no_more():
    for count, lengths in ((1024, demo_lengths(2000)), (768, demo_lengths(2000))):
        infos = lengths_as_infos(lengths)
        padding = [
            mean_padding(planner_of(infos, count, pool=256, in_order=share), 300)
            for share in (0.0, 0.5)
        ]
        assert padding[1] < padding[0]


@pytest.mark.parametrize("in_order", [-0.1, 1.5, float("nan")])
def test_a_share_in_order_that_is_none_is_refused(in_order):
    with pytest.raises(ValueError, match=r"data\.in_order=.*must be a share from 0 to 1"):
        planner_of(lengths_as_infos([1, 2]), in_order=in_order)


def test_state_does_not_grow_with_the_dataset():
    sizes = []
    for count in (100, 5000):
        planner = planner_of(lengths_as_infos(demo_lengths(count)))
        for _ in range(3):
            planner.next_step()
        sizes.append(len(json.dumps(planner.state_dict())))
    assert max(sizes) < 500


def test_another_seed_is_refused_on_resume():
    infos = lengths_as_infos([10] * 5)
    with pytest.raises(ValueError, match="seed=2: must equal the saved plan's seed=1"):
        planner_of(infos, seed=2).load_state_dict(planner_of(infos).state_dict())


def test_padding_of_a_native_mixture_stays_under_two_per_cent():
    planner = planner_of(native_infos(3000), 1_300_000, 4, 4096, 256)
    padding = mean_padding(planner, 40)
    assert padding < 0.02


def test_padding_of_demo_lengths_stays_under_two_per_cent():
    padding = mean_padding(planner_of(lengths_as_infos(demo_lengths(2000)), pool=256), 400)
    assert padding < 0.02


def mean_padding(planner, num_steps):
    used = packs = 0
    for _ in range(num_steps):
        for pack in planner.next_step():
            length = sum(planner.lengths[p.index] for p in pack)
            assert length <= planner.pack_tokens
            used += length
            packs += 1
    return 1 - used / (packs * planner.pack_tokens)


def test_no_pack_holds_more_than_max_segments():
    planner = planner_of(lengths_as_infos([3] * 100), max_segments=5)
    assert {len(pack) for _ in range(9) for pack in planner.next_step()} == {5}


def test_a_sample_larger_than_a_pack_is_named_with_the_remedy():
    infos = lengths_as_infos([10, 2000, 1500])
    with pytest.raises(ValueError, match=r"pack_tokens=1024: .* 2 are larger; 's1'.*at least 2000"):
        planner_of(infos)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_get_equally_many_packs_and_nearly_equal_work(world):
    planner = planner_of(native_infos(2000), 1_300_000, 32, 4096, 256)
    excess = []
    for _ in range(5):
        costs = [pack_cost([planner.lengths[p.index] for p in k]) for k in planner.next_step()]
        assert costs == sorted(costs, reverse=True)
        hands = deal(costs, world)
        assert sorted(n for hand in hands for n in hand) == list(range(32))
        assert {len(hand) for hand in hands} == {32 // world}
        loads = [sum(costs[n] for n in hand) for hand in hands]
        # No deal beats the mean, nor the largest pack together with the smallest companions.
        bound = max(np.mean(loads), costs[0] + sum(costs[len(costs) - 32 // world + 1 :]))
        excess.append(max(loads) / bound - 1)
    assert max(excess) < 0.03


def test_accounting_adds_up_to_the_budget_and_the_covered_pixels():
    infos = [info_of("v", "video", (6, 20, 33), rendered=True), info_of("i", "image", (1, 16, 16))]
    account = Accounting(samples_in_split=2)
    account.add_plan([[(infos[0], 0), (infos[1], 0)]], 32, CELL)
    assert account.tokens == 3 * 2 * 3 + 1
    assert account.padding_tokens == 32 - 19
    assert account.source_pixels == 6 * 20 * 33 + 256
    assert account.source_pixels + account.edge_pixels == 9 * 32 * 48 + 256
    assert (account.videos, account.images) == (1, 1)
    assert account.rendered_share == pytest.approx(18 / 19)
    assert Accounting.from_dict(json.loads(json.dumps(account.to_dict()))) == account
    assert "padding tokens" in account.table()


def test_equal_lengths_leave_the_pool_oldest_first():
    planner = planner_of(lengths_as_infos([512] * 9), packs_per_step=1, pool=4)
    flat = [p for _ in range(9) for p in planner.next_step()[0]]
    order = planner_of(lengths_as_infos([512] * 9), packs_per_step=1, pool=1)
    assert flat == [p for _ in range(9) for p in order.next_step()[0]]
    assert isinstance(flat[0], Planned)


def packed_by_hand(lengths, waiting, pack_tokens, max_segments, pool, in_order):
    """Yield packs by scanning a plain list: the oldest seeds one, then what fits joins."""
    held = []
    while True:
        held += [next(waiting) for _ in range(pool - len(held))]
        pack = [held.pop(0)]
        while len(pack) < max_segments:
            held += [next(waiting) for _ in range(pool - len(held))]
            used = sum(lengths[p.index] for p in pack)
            fitting = [p for p in held if used + lengths[p.index] <= pack_tokens]
            if not fitting:
                break
            if used >= in_order * pack_tokens:
                largest = max(lengths[p.index] for p in fitting)
                fitting = [p for p in fitting if lengths[p.index] == largest]
            pack.append(fitting[0])
            held.remove(fitting[0])
        yield pack


@pytest.mark.parametrize("in_order", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("pool", "max_segments"), [(1, 9), (5, 2), (12, 64)])
def test_a_plan_is_the_one_that_scanning_a_list_gives(in_order, pool, max_segments):
    lengths = np.random.default_rng(4).integers(1, 13, 40).tolist()  # many equal ones
    planner = planner_of(
        lengths_as_infos(lengths), 24, 3, max_segments, pool, seed=5, in_order=in_order
    )
    stream = Stream(lengths, [Span(0, 40, 1.0)], 5)
    waiting = (stream.draw()[1] for _ in range(10_000))
    packs = packed_by_hand(lengths, waiting, 24, max_segments, pool, in_order)
    for _ in range(30):
        step = [next(packs) for _ in range(3)]
        cost = [sum(n + n * n / 6144 for n in (lengths[p.index] for p in pack)) for pack in step]
        expected = [step[i] for i in sorted(range(3), key=lambda i: (-cost[i], i))]
        assert planner.next_step() == expected


def test_attention_costs_as_much_as_the_rest_at_six_times_a_width_of_1024():
    assert pack_cost([6144]) == 2 * 6144
    assert pack_cost([6144, 3072, 0]) == 2 * 6144 + 1.5 * 3072


def test_no_swap_with_the_slowest_rank_would_shorten_a_step():
    rng = np.random.default_rng(6)
    for world, room in ((2, 2), (2, 5), (3, 4), (4, 3)):
        for _ in range(20):
            costs = sorted(rng.pareto(1.5, world * room) + 1, reverse=True)
            hands = deal(costs, world)
            assert all(hand == sorted(hand) for hand in hands)
            assert sorted(n for hand in hands for n in hand) == list(range(world * room))
            loads = [sum(costs[n] for n in hand) for hand in hands]
            slow = int(np.argmax(loads))
            for other in set(range(world)) - {slow}:
                for mine in hands[slow]:
                    for theirs in hands[other]:
                        moved = costs[mine] - costs[theirs]
                        after = max(loads[slow] - moved, loads[other] + moved)
                        assert after >= max(loads) * (1 - 2e-9)


def test_packs_are_dealt_to_the_least_loaded_rank_and_then_swapped():
    assert deal([9.0, 5, 4, 4, 1, 1], 2) == [[0, 4, 5], [1, 2, 3]]  # 11 against 13
    assert deal([3.0, 3, 2, 2], 2) == [[0, 2], [1, 3]]
    # Longest first gives 10 + 2 against 7 + 6; nothing better is left.
    assert [sum((10.0, 7, 6, 2)[n] for n in hand) for hand in deal([10.0, 7, 6, 2], 2)] == [12, 13]


LEAST = {"pack_tokens": 1, "packs_per_step": 1, "max_segments": 1, "pool": 1, "seed": 0}


@pytest.mark.parametrize("name", [*LEAST, "shuffle_shards"])
def test_the_least_value_of_each_argument_is_taken_and_one_less_is_refused(name):
    infos, least = lengths_as_infos([1, 1]), LEAST | {"shuffle_shards": 0}
    step = planner_of(infos, **least).next_step()
    assert [len(pack) for pack in step] == [1]
    with pytest.raises(ValueError, match=rf"data\.{name}=.*: must be at least {least[name]}\. Use"):
        planner_of(infos, **(least | {name: least[name] - 1}))


def test_what_a_plan_depends_on_is_named_where_it_has_an_effect():
    infos = lengths_as_infos([1, 2, 3, 4])
    named = planner_of(infos, spans=[Span(0, 1, 2.0), Span(1, 4, 0.5)], in_order=0.25).parameters()
    assert named["mixture"] == [[1, 2.0], [3, 0.5]]
    assert named["in_order"] == 0.25
    assert "shuffle_shards" not in named
    assert planner_of(infos, shuffle_shards=2).parameters()["shuffle_shards"] == 2


def test_shards_are_numbered_where_their_name_changes():
    shards = ["b", "b", "a", "c", "c", "a"]
    infos = [info_of(f"s{i}", "image", (1, 16, 16), shard=name) for i, name in enumerate(shards)]
    assert shard_numbers(infos).tolist() == [0, 0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((100, 100), "square"),
        ((100, 109), "square"),
        ((109, 100), "square"),
        ((110, 100), "square"),  # the ratio itself, from either side
        ((100, 110), "square"),
        ((100, 111), "landscape"),
        ((111, 100), "portrait"),
        ((90, 160), "landscape"),
        ((160, 90), "portrait"),
    ],
)
def test_a_shape_is_named_beyond_a_ratio_of_eleven_to_ten(size, name):
    assert shape_name(*size) == name


def test_a_grid_counts_the_first_frame_alone_and_covers_every_edge():
    assert grid(1, 16, 16, CELL) == (1, 1, 1)
    assert grid(2, 17, 33, CELL) == (2, 2, 3)
    assert grid(9, 32, 16, (2, 16, 8)) == (5, 2, 2)
    assert tokens(9, 32, 16, (2, 16, 8)) == 20
