"""Several sources by weight: shares, exactly once per pass of each, resume, keys apart."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from data.bounds import check_bounds
from data.config import DataConfig, MemberConfig
from data.dataset.shards import ShardWriter
from data.loading.loader import Loader, load_fixed
from data.loading.mixture import read_mixture
from data.loading.planner import PackPlanner
from data.loading.stream import Span, Stream
from tests.data.conftest import info_of, meta

CELL = (4, 16, 16)
SIZES = {"wide": 40, "tall": 90, "tiny": 3}
GOLDEN_ORDER = [12, 8, 14, 15, 13, 11, 4, 9, 6, 10, 7, 5, 1, 3, 2, 16, 0, 19, 17, 18]
WEIGHTS = {"wide": 1.0, "tall": 2.0, "tiny": 0.5}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Give three datasets of latents: shapes, sizes and shard counts of their own."""
    folder = tmp_path_factory.mktemp("roots")
    shapes = {"wide": (1, 4, 9), "tall": (3, 8, 4), "tiny": (5, 9, 9)}
    for name, count in SIZES.items():
        with ShardWriter(folder / name, "train", 30_000) as writer:
            for i in range(count):
                f, h, w = shapes[name]
                w += i % 3
                latent = torch.full((4, f, h, w), float(i))
                shape = (1 + 4 * (f - 1), 16 * h, 16 * w)
                made = meta(f"{name}-{i:03d}", "latent", shape, source=f"{name}/{i % 2}")
                writer.write(made, save({"latent": latent}), "safetensors")
    return folder


def config_of(roots, **changes):
    members = [MemberConfig(root=str(roots / n), weight=w) for n, w in WEIGHTS.items()]
    values = {"pack_tokens": 1024, "packs_per_step": 4, "pool": 16, "mixture": members}
    return DataConfig(root=str(roots / "wide"), **(values | changes))


@pytest.fixture
def make_loader():
    made = []

    def make(config, rank=0, world=1, seed=3):
        made.append(Loader(config, "train", CELL, seed, rank, world))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def visits_of(step):
    return [(s.info.key, s.visit) for pack in step.packs for s in pack.samples]


def test_tokens_follow_the_weights_at_every_moment():
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(1, 400, 300)]
    spans = [Span(0, 100, 0.2), Span(100, 110, 3.0), Span(110, 290, 1.0), Span(290, 300, 0.01)]
    stream = Stream(lengths, spans, seed=1)
    drawn, total = [0] * 4, 0
    for _ in range(6_000):
        _, planned = stream.draw()
        source = next(n for n, s in enumerate(spans) if s.start <= planned.index < s.stop)
        drawn[source] += lengths[planned.index]
        total += lengths[planned.index]
        for number, span in enumerate(spans):
            # A source is never more than one of its samples ahead, nor one of any behind.
            lead = drawn[number] - total * span.weight / 4.21
            assert -max(lengths) <= lead <= max(lengths[span.start : span.stop])


def test_one_member_plans_what_its_root_alone_plans(roots, make_loader):
    alone = make_loader(config_of(roots, mixture=[]))
    member = make_loader(config_of(roots, mixture=[MemberConfig(weight=7.0)]))
    for _ in range(5):
        assert alone.next_step().plan == member.next_step().plan
    assert alone.state_dict() == member.state_dict()


def test_each_pass_of_each_member_meets_each_sample_once_across_layouts(roots, make_loader):
    seen, state = Counter(), None
    for world in [1, 2, 4, 2, 1]:
        ranks = [make_loader(config_of(roots), rank, world) for rank in range(world)]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        for _ in range(6):
            for rank in ranks:
                seen.update(visits_of(rank.next_step()))
        states = {json.dumps(rank.state_dict(), sort_keys=True) for rank in ranks}
        assert len(states) == 1
        state = json.loads(states.pop())
    assert set(seen.values()) == {1}
    for number, (name, size) in enumerate(SIZES.items()):
        waiting = [p // 3 // size for p in state["planner"]["pool"] if p % 3 == number]
        complete = min(waiting, default=state["planner"]["sources"][number][0] // size)
        assert complete >= 1
        for visit in range(complete):
            assert sum(k.startswith(name) and v == visit for k, v in seen) == size


def test_a_mixture_resumes_at_every_step(roots, make_loader):
    straight = make_loader(config_of(roots))
    states, plans = [], []
    for _ in range(12):
        states.append(json.loads(json.dumps(straight.state_dict())))
        plans.append(straight.next_step().plan)
    other = make_loader(config_of(roots))
    for place in (7, 0, 11, 3):
        other.load_state_dict(states[place])
        assert [other.next_step().plan for _ in range(12 - place)] == plans[place:]


def test_realised_shares_and_passes_are_in_the_accounting(roots, make_loader):
    loader = make_loader(config_of(roots))
    for _ in range(60):
        loader.next_step()
    account = loader.accounting()
    total = sum(WEIGHTS.values())
    assert sum(m.tokens for m in account.members.values()) == account.tokens
    for (name, weight), found in zip(WEIGHTS.items(), account.members.values(), strict=True):
        # What waits in the pool has been drawn but not planned: 16 samples of at most 495 tokens.
        assert abs(found.tokens - account.tokens * weight / total) <= 17 * 495
        assert found.samples_in_split == SIZES[name]
    assert "asked 57.14%" in account.table()
    other = make_loader(config_of(roots))
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert other.accounting().members == account.members


def test_sources_of_one_root_are_weighted_by_pattern(roots, make_loader):
    members = [
        MemberConfig(root=str(roots / "tall"), source="tall/0", weight=3.0),
        MemberConfig(root=str(roots / "tall"), source="tall/1", weight=1.0),
    ]
    loader = make_loader(config_of(roots, mixture=members))
    for _ in range(40):
        loader.next_step()
    tokens = loader.accounting().source_tokens
    assert tokens["tall/0"] / tokens["tall/1"] == pytest.approx(3, rel=0.1)


def test_a_key_in_two_members_is_named(roots):
    twice = [MemberConfig(root=str(roots / "wide")), MemberConfig(source="wide/1")]
    with pytest.raises(ValueError, match=r"key='wide-001': must be in one member of data\.mixture"):
        read_mixture(config_of(roots, mixture=twice), "train")


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (MemberConfig(source="none/*"), r"data\.mixture\[1\]\.source='none/\*': matches no sample"),
        (MemberConfig(split="test"), r"split=test: .* is missing"),
    ],
)
def test_a_member_that_cannot_work_is_named(roots, member, match):
    members = [MemberConfig(root=str(roots / "tall")), member]
    with pytest.raises(ValueError, match=match):
        read_mixture(config_of(roots, mixture=members), "train")


@pytest.mark.parametrize("weight", [0.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(weight):
    config = DataConfig(mixture=[MemberConfig(), MemberConfig(weight=weight)])
    with pytest.raises(
        ValueError, match=rf"^data\.mixture\[1\]\.weight={weight:g}: must be .* Use 1\."
    ):
        check_bounds(config, "data.")


def test_other_weights_or_members_are_refused_on_resume(roots, make_loader):
    state = make_loader(config_of(roots)).state_dict()
    heavier = config_of(roots)
    heavier.mixture[1].weight = 5.0
    with pytest.raises(ValueError, match=r"data\.mixture=.*5\.0.*must equal the saved"):
        make_loader(heavier).load_state_dict(state)
    parts = [MemberConfig(source="wide/0"), MemberConfig(source="wide/1")]
    split = make_loader(config_of(roots, mixture=parts)).state_dict()
    with pytest.raises(ValueError, match=r"dataset=|data\.mixture=None"):
        make_loader(config_of(roots, mixture=[])).load_state_dict(split)


def test_validation_stays_on_the_root(roots):
    keys = {s.info.key for s in load_fixed(config_of(roots), "train", 0)}
    assert len(keys) == SIZES["wide"]
    assert all(key.startswith("wide") for key in keys)


def test_the_state_of_a_mixture_does_not_grow_with_its_members():
    sizes = []
    for count in (50, 5000):
        infos = [info_of(f"s{i}", "image", (1, 16, 16 * (1 + i % 9))) for i in range(count)]
        spans = [Span(0, count // 2, 1.0), Span(count // 2, count, 2.0)]
        planner = PackPlanner(infos, CELL, 64, 4, 64, 32, 1, spans)
        for _ in range(10):
            planner.next_step()
        sizes.append(len(json.dumps(planner.state_dict())))
    assert max(sizes) < 500


def windowed(count, shards, window, seed=1):
    names = [f"shard-{i * shards // count:06d}.tar" for i in range(count)]
    infos = [info_of(f"s{i}", "image", (1, 16, 16), shard=n) for i, n in enumerate(names)]
    planner = PackPlanner(infos, CELL, 10, 1, 10, 1, seed, shuffle_shards=window)
    order = [p.index for _ in range(2 * count // 10) for p in planner.next_step()[0]]
    return order[:count], order[count:]


def test_shuffled_shards_are_few_at_a_time_and_each_pass_is_whole_and_new():
    first, second = windowed(1000, 20, 4)
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second
    for order in (first, second):
        places = np.empty(1000, int)
        places[order] = np.arange(1000)
        begins, ends = places.reshape(20, 50).min(1), places.reshape(20, 50).max(1)
        opened = [((begins <= k) & (k <= ends)).sum() for k in range(1000)]
        assert 4 <= max(opened) <= 5  # the window's four and the one that begins
        assert np.median(ends - begins) == pytest.approx(200, rel=0.1)
        assert (np.abs(np.diff(order)) == 1).mean() < 0.05
    assert [index // 50 for index in first[::50]] != [index // 50 for index in second[::50]]


def test_a_smaller_limit_holds_a_subset_and_every_member_is_limited(roots) -> None:
    keys = {}
    for limit in (0.0, 0.5, 0.25, 3):
        found = read_mixture(config_of(roots, limit=limit), "train")
        keys[limit] = [info.key for info in found.infos]
        sizes = [member.span.stop - member.span.start for member in found.members]
        if 0 < limit < 1:
            assert sizes == [round(limit * count) for count in SIZES.values()]
    assert set(keys[3]) < set(keys[0.0])
    assert len(keys[3]) == 9
    assert set(keys[0.25]) < set(keys[0.5]) < set(keys[0.0])
    assert keys[0.5] == [key for key in keys[0.0] if key in set(keys[0.5])]  # order of the index
    alone = read_mixture(DataConfig(root=str(roots / "tall"), limit=0.5), "train")
    assert [info.key for info in alone.infos] == [k for k in keys[0.5] if k.startswith("tall")]


@pytest.mark.parametrize("limit", [-1.0, 2.5, 4.0])
def test_a_limit_that_cannot_be_met_is_refused(roots, limit) -> None:
    with pytest.raises(ValueError, match=r"data\.limit=.*: must be 0, a share below 1 or a whole"):
        read_mixture(config_of(roots, limit=limit), "train")


def test_the_next_source_is_the_one_that_exact_arithmetic_chooses():
    """Of the sources not ahead of their share, the one that would finish its next sample first."""
    rng = np.random.default_rng(2)
    lengths = [int(n) for n in rng.integers(1, 40, 60)]
    spans = [Span(0, 10, 1.0), Span(10, 40, 2.0), Span(40, 60, 1.0)]
    shares = [Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)]
    stream = Stream(lengths, spans, seed=3)
    served, total = [Fraction(0)] * 3, Fraction(0)
    waiting = [[] for _ in spans]
    drawn = [stream.draw()[1] for _ in range(400)]
    for planned in drawn:
        source = sum(planned.index >= span.start for span in spans) - 1
        waiting[source].append(lengths[planned.index])
    for planned in drawn[:300]:
        finishes = [(s + queue[0]) / q for s, queue, q in zip(served, waiting, shares, strict=True)]
        late = [i for i in range(3) if served[i] / shares[i] <= total]
        chosen = min(late, key=lambda i: (finishes[i], i))
        assert spans[chosen].start <= planned.index < spans[chosen].stop
        served[chosen] += waiting[chosen].pop(0)
        total += lengths[planned.index]


def test_a_place_is_told_by_its_code():
    lengths = list(range(1, 31))
    stream = Stream(lengths, [Span(0, 7, 3.0), Span(7, 30, 1.0)], seed=4)
    codes = [stream.draw() for _ in range(100)]
    assert len({code for code, _ in codes}) == 100
    fresh = Stream(lengths, [Span(0, 7, 3.0), Span(7, 30, 1.0)], seed=4)
    for code, planned in reversed(codes):
        assert fresh.locate(code) == planned
    for source, (start, stop) in enumerate(((0, 7), (7, 30))):
        own = [(code // 2, p) for code, p in codes if code % 2 == source]
        assert [place for place, _ in own] == list(range(len(own)))
        assert all(start <= p.index < stop for _, p in own)
        assert [p.visit for _, p in own] == [i // (stop - start) for i in range(len(own))]


def test_rows_of_the_index_know_their_member_and_its_share(roots):
    found = read_mixture(config_of(roots), "train")
    owners = [name for name, count in SIZES.items() for _ in range(count)]
    assert [list(SIZES)[found.member_of(i)] for i in range(len(owners))] == owners
    assert [info.source.split("/")[0] for info in found.infos] == owners
    assert found.shares == pytest.approx([1 / 3.5, 2 / 3.5, 0.5 / 3.5])
    assert found.members[1].name == f"{roots / 'tall'} train"


def test_a_limit_takes_the_keys_of_the_smallest_digests(roots):
    whole = read_mixture(DataConfig(root=str(roots / "tall")), "train").infos
    for limit, count in ((0.5, 45), (0.001, 1), (1, 1), (90, 90), (7, 7)):
        digests = sorted(hashlib.sha256(info.key.encode()).hexdigest() for info in whole)[:count]
        found = read_mixture(DataConfig(root=str(roots / "tall"), limit=limit), "train").infos
        assert sorted(hashlib.sha256(i.key.encode()).hexdigest() for i in found) == digests, limit
    with pytest.raises(ValueError, match=r"data\.limit=91"):
        read_mixture(DataConfig(root=str(roots / "tall"), limit=91), "train")


def test_a_payload_comes_from_the_cache_where_there_is_one(roots):
    class Cache:
        """As much of a cache as a member asks."""

        def read_payload(self, split, info):
            return f"{split} {info.key}".encode()

    plain = read_mixture(DataConfig(root=str(roots / "wide")), "train")
    info, member = plain.infos[3], plain.members[0]
    assert replace(member, cache=Cache()).read_payload(info) == f"train {info.key}".encode()
    assert load(member.read_payload(info))["latent"].eq(3.0).all()


def test_the_shuffled_order_of_a_seed_never_changes():
    """Guards the promise that old runs resume, as the plan's golden numbers do."""
    assert windowed(20, 5, 2, seed=7)[0] == GOLDEN_ORDER
