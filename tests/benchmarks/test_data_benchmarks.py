"""The benchmarks of the data room measure what they say, and run."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import bucketing, loading, packers, packing, shuffling
from benchmarks.native_sizes import VIDEO_SHARE, draw_clips
from benchmarks.packs import build_model, build_sample, our_loss
from benchmarks.plain_dit import PlainDiT, pad

BUDGET = 2**20


@pytest.fixture(scope="module")
def clips():
    return draw_clips(1500)


def test_the_simulated_mixture_is_the_stated_one():
    clips = draw_clips(20_000)
    lengths = [clip.tokens for clip in clips]
    assert abs(np.median(lengths) / 11_500 - 1) < 0.05
    assert 800_000 < max(lengths) < 1_000_000
    assert abs(sum(clip.num_frames > 1 for clip in clips) / len(clips) - VIDEO_SHARE) < 0.02
    wide = sum(abs(clip.width / clip.height - 16 / 9) < 0.02 for clip in clips) / len(clips)
    assert abs(wide - 0.5) < 0.02
    assert all(clip.num_frames % 4 == 1 for clip in clips)


@pytest.mark.parametrize(
    "packer",
    [
        lambda clips: packers.next_fit(clips, BUDGET),
        lambda clips: packers.best_fit_window(clips, BUDGET, 256),
        lambda clips: packers.refill_pool(clips, BUDGET, 64),
        lambda clips: packers.refill_and_cut(clips, BUDGET, 64),
        lambda clips: packers.refill_and_cut(clips, 2**17, 64),
        lambda clips: packers.refill_and_cut(clips, 2**17, 64, equal_parts=True),
        lambda clips: packers.buckets(clips, BUDGET),
        lambda clips: packers.pad_to_longest(clips, BUDGET),
    ],
)
def test_no_way_to_pack_overfills_or_invents_tokens(clips, packer):
    batches = list(packer(clips))
    used = sum(sum(batch.lengths) + batch.dropped for batch in batches)
    assert all(sum(batch.computed) <= batch.budget for batch in batches)
    assert all(min(batch.lengths) > 0 for batch in batches)
    # What still waits at the end is missing, and nothing comes twice.
    assert 0.3 * sum(clip.tokens for clip in clips) < used <= sum(clip.tokens for clip in clips)


def test_the_spread_is_none_for_equal_costs_and_dealing_beats_chance():
    assert packing.spread([3.0] * 64, 8, dealt=False) == pytest.approx(0)
    costs = np.random.default_rng(0).exponential(size=640).tolist()
    assert packing.spread(costs, 8, dealt=True) < packing.spread(costs, 8, dealt=False) / 3


def test_shuffle_quality_tells_stored_order_from_random_order():
    sources = np.arange(4000) // 100
    lengths = np.exp(sources % 7).astype(float)
    stored = shuffling.shuffle_quality(shuffling.in_steps(np.arange(4000)), sources, lengths)
    mixed = np.random.default_rng(0).permutation(4000)
    chance = shuffling.shuffle_quality(shuffling.in_steps(mixed), sources, lengths)
    assert stored["near"] == 1
    assert stored["clumps"] > 20
    assert chance["apart"] == pytest.approx(1 - 0.5**0.5, abs=0.02)
    assert chance["near"] == pytest.approx(0.02, abs=0.01)
    assert chance["clumps"] == pytest.approx(1, abs=0.1)
    assert abs(chance["source"]) < 0.1


def test_bucketed_batches_hold_each_clip_once_and_compute_our_loss(monkeypatch):
    lengths = [4, 9, 4, 30, 7, 9, 9]
    grids = [(1, 2, 2), (1, 3, 3), (1, 2, 2), (5, 3, 2), (1, 1, 7), (1, 3, 3), (1, 3, 3)]
    monkeypatch.setattr(bucketing, "BUDGET", 30)
    for batches in (
        bucketing.equal_shapes(grids, lengths),
        bucketing.fill_padded(list(range(7)), lengths),
    ):
        assert sorted(n for batch in batches for n in batch) == list(range(7))
        for batch in batches:
            assert len(batch) * max(lengths[n] for n in batch) <= 30
    model = bucketing.MODEL
    whole = build_sample(model, [(grid, 3) for grid in grids])
    plain = PlainDiT(model)
    plain.load_state_dict(build_model(model).state_dict())
    values = float(whole.pack.valid.sum())
    parts = bucketing.equal_shapes(grids, lengths)
    losses = [plain(pad(whole.pack, whole.x_0, whole.t, part)).sum() / values for part in parts]
    ours = our_loss(build_model(model), whole)
    torch.testing.assert_close(sum(losses), ours, rtol=1e-5, atol=0)


def test_the_step_to_bucket_is_a_settled_one_of_the_planner():
    packs = bucketing.plan_step(bucketing.draw_small(600))
    assert len(packs) == bucketing.PACKS
    numbers = [n for pack in packs for n in pack]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.heavy
def test_readers_read_the_same_samples_and_absent_rivals_are_named(tmp_path, monkeypatch, capsys):
    ways = ("ours-random", "ours-random-unverified", "mosaic-random")
    monkeypatch.setattr(loading, "WAYS", dict.fromkeys(ways))
    out = tmp_path / "speeds.json"
    absent = str(tmp_path / "python")
    loading.main(["--clips", "30", "--rounds", "2", "--python", absent, "--json", str(out)])
    shown = capsys.readouterr().out
    assert f"mosaic-random: left out, {absent} cannot be started" in shown
    speeds = json.loads(out.read_text())
    assert {speed["way"] for speed in speeds} == set(ways[:2])
    assert all(speed["median"] > 0 for speed in speeds)
    assert "has no streaming" in loading.missing(sys.executable, "mosaic-random")


def test_the_memory_of_a_run_is_printed_per_tenth(tmp_path, capsys):
    growth = loading.memory(tmp_path, 20)
    assert abs(growth) < 100
    assert "MiB resident" in capsys.readouterr().out
