"""The search finds the fastest layout that can run, and says why each other one cannot or lost."""

import pytest

from launch.planner.config import SearchConfig
from launch.planner.machine import load_machine
from launch.planner.memory import plan_memory
from launch.planner.network import Network
from launch.planner.search import candidates, describe, search, step_tokens
from launch.planner.speed import Execution, step_time
from launch.planner.workload import Clips, batch_of, pack_shape
from models.config import ModelConfig
from trainer.config import compose_run

MODEL = ModelConfig(width=1024, depth=4, head_dim=128)
LARGE = ModelConfig(width=6144, depth=48, head_dim=96)
CLIPS = Clips(mean=2048, segment=2048, longest=4096, caption=64)
BATCH = 2.0**18


def settings(**values):
    return SearchConfig(**{"gpus": 8} | values)


@pytest.mark.heavy
def test_the_best_is_the_fastest_of_all_that_fit():
    machine = load_machine("h100")
    found = search(MODEL, machine, CLIPS, settings(), BATCH)
    times = []
    for parallel, pack_tokens, micros in candidates(MODEL, machine, CLIPS, settings(), BATCH):
        pack = pack_shape(CLIPS, pack_tokens)
        if plan_memory(MODEL, parallel, pack, micros, machine).excess <= 0:
            batch = batch_of(CLIPS, pack_tokens, micros)
            how = Execution.of(parallel, MODEL)
            times.append(step_time(Network.of(MODEL), machine, how, batch).total)
    assert found.best[0].time.total == min(times)
    best = [candidate.time.total for candidate in found.best]
    assert best == sorted(best)


def test_every_candidate_can_run_and_makes_the_same_batch():
    count = 0
    for parallel, pack_tokens, micros in candidates(
        MODEL, load_machine("h100"), CLIPS, settings(offload=True), BATCH
    ):
        parallel.check(MODEL, micros * parallel.layout.dp)
        assert pack_tokens >= CLIPS.longest
        assert pack_tokens % parallel.layout.row_shards == 0
        assert pack_tokens * micros * parallel.layout.dp == pytest.approx(BATCH, rel=0.01)
        count += 1
    assert count > 100


def test_every_layout_is_among_the_best_or_in_a_group_of_losers():
    machine = load_machine("h100", ["memory_bytes=12e9"])
    found = search(MODEL, machine, CLIPS, settings(), BATCH)
    lost = {group.reason: group.count for group in found.losers}
    assert found.looked_at == len(found.best) + sum(lost.values())
    assert lost["does not fit: activations"] > 0
    assert any(reason == "bubble" for reason in lost)
    assert any(reason.startswith("communication") for reason in lost)


def test_nothing_fits_a_tiny_device_and_the_closest_miss_is_told():
    machine = load_machine("h100", ["memory_bytes=4.1e9"])
    found = search(MODEL, machine, CLIPS, settings(), BATCH)
    assert found.best == []
    assert all(group.reason.startswith("does not fit") for group in found.losers)
    assert all(" too much at " in group.closest for group in found.losers)


@pytest.mark.heavy
def test_a_thirty_billion_model_on_1024_devices_has_a_layout_that_fits_exactly():
    machine = load_machine("h100")
    clips = Clips(8192, 8192, 8192, 64)
    found = search(LARGE, machine, clips, SearchConfig(gpus=1024), 2.0**24)
    assert found.looked_at > 5000
    for candidate in found.best:
        assert candidate.parallel.layout.world == 1024
        assert candidate.memory.total <= machine.memory_bytes
    best = found.best[0]
    assert best.parallel.layout.tp * best.parallel.layout.pp > 1  # 16 bytes x 29e9 need sharing
    assert "parallel.processes=1024" in best.overrides()


@pytest.mark.heavy
def test_the_winner_is_a_run_that_composes():
    found = search(MODEL, load_machine("h100"), CLIPS, settings(), BATCH)
    words = ["model.width=1024", "model.depth=4", "model.head_dim=128", "horizon.steps=3"]
    run = compose_run([*words, *found.best[0].overrides()])
    assert run.parallel == found.best[0].parallel
    assert run.batch_tokens == BATCH


def test_a_step_is_the_runs_unless_it_starves_the_devices():
    run = compose_run(["horizon.steps=3", "data.pack_tokens=16384", "data.packs_per_step=4"])
    assert step_tokens(run, SearchConfig(gpus=4)) == 65536
    assert step_tokens(run, SearchConfig(gpus=1024)) == 1024 * 16384
    assert step_tokens(run, SearchConfig(gpus=4, batch_tokens=1e6)) == 1e6


def test_words_of_a_search_are_of_one_pack_or_of_many_and_of_what_there_is_too_much_of():
    machine = load_machine("h100", ["memory_bytes=12e9"])
    found = search(MODEL, machine, CLIPS, settings(), BATCH)
    said = [describe(candidate) for candidate in found.best] + [g.closest for g in found.losers]
    assert any(text.endswith(" 1 pack") for text in said)
    assert not any(text.endswith(" 1 packs") for text in said)
    assert not any("0.00 " in text for text in said)
    assert any(" MiB too much at " in text for text in said)  # never 0.11 GiB
