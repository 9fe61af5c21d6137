"""Packs on ranks: the same samples whatever the layout, exact resume, bad samples by policy."""

import contextlib
import gc
import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter

import psutil
import pytest
import torch

from data.config import BadSamplePolicy, DataConfig
from data.dataset.shards import ShardWriter, read_index
from data.dataset.tokens import tokens
from data.decode.pool import DecodeError
from data.loading.loader import Loader, fixed_order, load_fixed
from tests.data.conftest import info_of, meta

CELL = (4, 16, 16)


def config_of(root, **changes):
    values = {"root": str(root), "pack_tokens": 512, "packs_per_step": 4, "pool": 16} | changes
    return DataConfig(**values)


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


def test_latents_arrive_in_packs_with_their_captions(latent_root, make_loader):
    step = make_loader(config_of(latent_root)).next_step()
    assert step.index == 0
    assert len(step.packs) == len(step.plan) == 4
    for pack in step.packs:
        length = 0
        for sample in pack.samples:
            number = float(sample.info.key.split("-")[1])
            assert (sample.latent == number).all()
            assert sample.caption_states.shape == (sample.info.caption_tokens, 32)
            assert sample.frames is None
            length += sample.latent[0].numel()
            shape = (sample.info.num_frames, sample.info.height, sample.info.width)
            assert tokens(*shape, CELL) == sample.latent[0].numel()
        assert length <= pack.budget == 512


def test_clips_and_images_arrive_decoded_at_native_size(clip_root, make_loader):
    loader = make_loader(config_of(clip_root, pack_tokens=64, packs_per_step=2))
    kinds = set()
    for _ in range(6):
        for pack in loader.next_step().packs:
            for sample in pack.samples:
                info = sample.info
                assert sample.frames.dtype == torch.uint8
                assert sample.frames.shape == (info.num_frames, info.height, info.width, 3)
                kinds.add((info.media, sample.decoder))
    # PyAV reads a payload's first visit; on later ones decord may, where it is as fast.
    assert {("video", "pyav"), ("image", "pillow")} <= kinds
    assert kinds <= {("video", "pyav"), ("video", "decord"), ("image", "pillow")}
    assert set(loader.accounting().decoders) == {decoder for _, decoder in kinds}


@pytest.mark.parametrize("world", [2, 4])
def test_all_ranks_together_read_what_one_rank_reads(latent_root, make_loader, world):
    one = make_loader(config_of(latent_root))
    ranks = [make_loader(config_of(latent_root), rank, world) for rank in range(world)]
    for _ in range(5):
        whole = one.next_step()
        parts = [rank.next_step() for rank in ranks]
        assert all(part.plan == whole.plan for part in parts)
        assert all(len(part.packs) == 4 // world for part in parts)
        assert Counter(v for p in parts for v in visits_of(p)) == Counter(visits_of(whole))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_shares_of_ranks_are_disjoint_and_complete(latent_root, make_loader, world):
    config = config_of(latent_root, packs_per_step=8)
    ranks = [make_loader(config, rank, world) for rank in range(world)]
    for _ in range(4):
        steps = [rank.next_step() for rank in ranks]
        planned = Counter((i.key, visit) for pack in steps[0].plan for i, visit in pack)
        shares = [Counter(visits_of(step)) for step in steps]
        assert all(step.plan == steps[0].plan for step in steps)
        assert all(shares)
        assert sum(shares, Counter()) == planned
        assert set(planned.values()) == {1}


@pytest.mark.parametrize(("world", "workers"), [(1, 3), (2, 2)])
def test_shares_are_disjoint_and_complete_with_several_decoders(
    clip_root, make_loader, world, workers
):
    config = config_of(clip_root, pack_tokens=64, packs_per_step=2, decode_workers=workers)
    ranks = [make_loader(config, rank, world) for rank in range(world)]
    seen = Counter()
    while sum(seen.values()) < 40:
        steps = [rank.next_step() for rank in ranks]
        found = sum((Counter(visits_of(step)) for step in steps), Counter())
        assert found == Counter((i.key, visit) for pack in steps[0].plan for i, visit in pack)
        seen += found
    assert set(seen.values()) == {1}


def test_every_sample_comes_once_per_epoch_across_resumes_and_rank_changes(
    latent_root, make_loader
):
    seen, state = Counter(), None
    for world in [1, 2, 4, 2, 1, 4, 1]:
        ranks = [make_loader(config_of(latent_root), rank, world) for rank in range(world)]
        for rank in ranks:
            if state:
                rank.load_state_dict(state)
        for _ in range(4):
            for rank in ranks:
                seen.update(visits_of(rank.next_step()))
        states = [json.dumps(rank.state_dict(), sort_keys=True) for rank in ranks]
        assert len(set(states)) == 1
        state = json.loads(states[0])
    assert set(seen.values()) == {1}
    complete = min(state["planner"]["pool"]) // 200
    assert complete >= 1
    for epoch in range(complete):
        assert sum(visit == epoch for _, visit in seen) == 200


def test_resume_at_any_step_ignores_what_the_prefetch_has_planned(latent_root, make_loader):
    straight = make_loader(config_of(latent_root))
    states, steps = [straight.state_dict()], []
    for _ in range(8):
        steps.append(straight.next_step())
        time.sleep(0.01)  # lets the prefetch plan ahead before the state is taken
        states.append(json.loads(json.dumps(straight.state_dict())))
    reused = make_loader(config_of(latent_root))
    for place in [5, 0, 7, 3, 3]:
        reused.load_state_dict(states[place])
        assert reused.state_dict() == states[place]
        for expected in steps[place:]:
            step = reused.next_step()
            assert step.index == expected.index
            assert step.plan == expected.plan
            for pack, twin in zip(step.packs, expected.packs, strict=True):
                for a, b in zip(pack.samples, twin.samples, strict=True):
                    assert torch.equal(a.latent, b.latent)
        assert reused.state_dict() == states[8]


def test_the_number_of_decode_workers_changes_nothing(clip_root, make_loader):
    steps = []
    for workers in (1, 2):
        config = config_of(clip_root, pack_tokens=64, packs_per_step=2, decode_workers=workers)
        loader = make_loader(config)
        steps.append([loader.next_step() for _ in range(3)])
    for a, b in zip(*steps, strict=True):
        assert visits_of(a) == visits_of(b)
        for pack, twin in zip(a.packs, b.packs, strict=True):
            for left, right in zip(pack.samples, twin.samples, strict=True):
                assert torch.equal(left.frames, right.frames)


@pytest.mark.heavy
def test_decoders_killed_at_random_moments_lose_and_repeat_no_sample(clip_root, make_loader):
    loader = make_loader(config_of(clip_root, pack_tokens=64, packs_per_step=1, decode_workers=2))
    moments, killed = random.Random(0), []

    def kill_one():
        alive = loader._reader.pool.pids()
        if alive:
            killed.append(moments.choice(alive))
            with contextlib.suppress(ProcessLookupError):  # replaced since
                os.kill(killed[-1], signal.SIGKILL)

    steps = []
    while len(steps) < 200:
        if len(steps) % 25 == 0:
            killer = threading.Timer(moments.uniform(0, 0.03), kill_one)
            killer.start()
        # A clip whose two attempts are both killed stops the step, which is planned again.
        with contextlib.suppress(DecodeError):
            steps.append(loader.next_step())
    killer.join()
    assert len(killed) >= 3
    for step in steps:
        planned = Counter((i.key, visit) for pack in step.plan for i, visit in pack)
        assert Counter(visits_of(step)) == planned
        assert not any(pack.dropped for pack in step.packs)
    seen = sum((Counter(visits_of(step)) for step in steps), Counter())
    assert set(seen.values()) == {1}
    for visit in range(2, min(loader.state_dict()["planner"]["pool"]) // 18):
        assert sum(v == visit for _, v in seen) == 18


@pytest.mark.heavy
def test_memory_stays_flat_over_many_packs(latent_root, make_loader):
    """What is still to grow after 500 packs is under 4 MB: a leak of a header a sample shows."""
    loader = make_loader(config_of(latent_root, packs_per_step=10))
    for _ in range(50):
        loader.next_step()
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(200):
        loader.next_step()
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 4 * 2**20


def test_packs_that_ranks_cannot_share_are_refused(latent_root, make_loader):
    match = (
        r"data\.packs_per_step=3: must be divisible by the number of data-parallel ranks=2\. "
        r"Use 2 or 4\."
    )
    with pytest.raises(ValueError, match=match):
        make_loader(config_of(latent_root, packs_per_step=3), 0, 2)
    with pytest.raises(ValueError, match=r"ranks=4\. Use 4\."):
        make_loader(config_of(latent_root, packs_per_step=3), 0, 4)


def test_video_without_decode_workers_is_refused(clip_root, make_loader):
    with pytest.raises(ValueError, match="decode_workers=0: must be at least 1"):
        make_loader(config_of(clip_root, decode_workers=0))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pack_tokens": 600}, r"data\.pack_tokens=600: must equal .* 512"),
        ({"packs_per_step": 2}, r"data\.packs_per_step=2"),
        ({"pool": 8}, r"data\.pool=8"),
    ],
)
def test_other_planning_parameters_are_refused_on_resume(latent_root, make_loader, changes, match):
    state = make_loader(config_of(latent_root)).state_dict()
    with pytest.raises(ValueError, match=match):
        make_loader(config_of(latent_root, **changes)).load_state_dict(state)


def test_another_dataset_or_seed_is_refused_on_resume(latent_root, clip_root, make_loader):
    state = make_loader(config_of(latent_root)).state_dict()
    with pytest.raises(ValueError, match=r"dataset=.*must equal"):
        make_loader(config_of(clip_root)).load_state_dict(state)
    with pytest.raises(ValueError, match="seed=4: must equal"):
        make_loader(config_of(latent_root), seed=4).load_state_dict(state)


@pytest.fixture
def damaged_root(latent_root, tmp_path, rewrite):
    """Give the latents with one flipped byte, and the key it lies in."""
    root = tmp_path / "damaged"
    shutil.copytree(latent_root, root)
    info = read_index(root, "train")[17]
    rewrite(root / "train" / info.shard, info.offset + info.nbytes // 2, b"\xff\x00\xff")
    return root, info.key


def test_a_damaged_sample_stops_the_run_by_default_at_the_same_step_again(
    damaged_root, make_loader
):
    root, key = damaged_root
    loader = make_loader(config_of(root))
    steps = 0

    def run():
        nonlocal steps
        while True:
            loader.next_step()
            steps += 1

    with pytest.raises(DecodeError, match=f"key={key}: cannot be decoded .sha256"):
        run()
    before = loader.state_dict()
    assert before["next_index"] == steps
    with pytest.raises(DecodeError, match=key):
        loader.next_step()
    assert loader.state_dict() == before


def test_a_damaged_sample_is_dropped_counted_and_listed_by_policy(damaged_root, make_loader):
    root, key = damaged_root
    loader = make_loader(config_of(root, on_bad_sample=BadSamplePolicy.drop))
    dropped, visits = [], 0
    while loader.accounting().epochs < 2:
        step = loader.next_step()
        dropped += [name for pack in step.packs for name, _ in pack.dropped]
        visits += len(visits_of(step))
        planned = [info.key for pack in step.plan for info, _ in pack]
        assert dropped.count(key) <= 2
        assert (key in planned) == any(pack.dropped for pack in step.packs)
    account = loader.accounting()
    assert set(dropped) == {key}
    assert [name for name, _ in account.dropped] == dropped
    assert account.videos + account.images == visits + len(dropped)
    assert key in account.table()
    assert "sha256" in account.table()


@pytest.mark.parametrize("payload", [b"", b"junk", b"\x08" + b"\0" * 7 + b"{}      "])
def test_a_payload_that_holds_no_latent_is_named(tmp_path, make_loader, payload):
    with ShardWriter(tmp_path, "train", 10**6) as writer:
        writer.write(meta("odd", "latent", (1, 16, 16)), payload or b"\0", "safetensors")
    with pytest.raises(DecodeError, match="key=odd"):
        make_loader(config_of(tmp_path, packs_per_step=1)).next_step()


def test_accounting_adds_up_and_survives_a_resume(latent_root, make_loader):
    loader = make_loader(config_of(latent_root))
    for _ in range(30):
        step = loader.next_step()
    account = loader.accounting()
    assert account.tokens + account.padding_tokens == 30 * 4 * 512
    assert account.padding_share < 0.03
    assert sum(account.source_tokens.values()) == account.tokens
    assert account.decoders == {"safetensors": account.videos + account.images}
    assert 0 < account.rendered_share < 1
    assert account.edge_pixels > 0
    state = loader.state_dict()
    step = loader.next_step()
    whole = loader.accounting().to_dict()
    other = make_loader(config_of(latent_root))
    other.load_state_dict(state)
    assert other.next_step().plan == step.plan
    resumed = other.accounting().to_dict()
    assert {k: v for k, v in resumed.items() if k != "decoders"} == {
        k: v for k, v in whole.items() if k != "decoders"
    }
    table = loader.accounting().table()
    for words in ("padding tokens", "edge-padding", "source painted", "rendered", "dropped"):
        assert words in table


def test_the_fixed_set_is_stable_when_it_grows_and_across_calls(latent_root):
    config = config_of(latent_root)
    few, more = load_fixed(config, "train", 8), load_fixed(config, "train", 20)
    assert [s.info.key for s in few] == [s.info.key for s in more][:8]
    assert {s.visit for s in more} == {0}
    assert len(load_fixed(config, "train", 0)) == 200
    with pytest.raises(ValueError, match="limit=-1"):
        load_fixed(config, "train", -1)


def test_every_prefix_of_the_fixed_order_has_the_mixture_of_the_split():
    infos = []
    for i in range(200):
        shape = [(5, 48, 64), (1, 48, 64), (5, 64, 48), (5, 48, 64)][i % 4]
        media = "image" if shape[0] == 1 else "video"
        infos.append(info_of(f"k{i}", media, shape, source="ab"[i % 5 == 0]))
    order = fixed_order(infos)
    assert sorted(i.key for i in order) == sorted(i.key for i in infos)
    assert fixed_order(infos[::-1]) == order
    for length in (20, 40, 100):
        stills = sum(i.num_frames == 1 for i in order[:length])
        assert abs(stills / length - 0.25) <= 2 / length
        portraits = sum(i.height > i.width for i in order[:length])
        assert abs(portraits / length - 0.25) <= 2 / length


def test_the_fixed_set_refuses_a_damaged_sample_under_either_policy(damaged_root):
    root, key = damaged_root
    config = config_of(root, on_bad_sample=BadSamplePolicy.drop)
    with pytest.raises(DecodeError, match=key):
        load_fixed(config, "train", 0)


def test_reading_a_latent_costs_well_under_a_millisecond(latent_root, make_loader):
    loader = make_loader(config_of(latent_root))
    loader.next_step()
    rounds = []
    for _ in range(5):
        start, count = time.process_time(), 0
        for _ in range(10):
            count += len(visits_of(loader.next_step()))
        rounds.append((time.process_time() - start) / count)
    # Processor time, and the best of five: neighbours on the machine do not count.
    assert min(rounds) < 1e-3
