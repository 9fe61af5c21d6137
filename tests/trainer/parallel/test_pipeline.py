"""The schedule of pipeline stages: complete, in order, without deadlock, and short of memory."""

import gc
import json
import math
from collections import deque
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.config import ModelConfig
from trainer.layout.layout import Layout
from trainer.layout.messages import (
    SENDS,
    Action,
    Message,
    forward_only,
    messages_held,
    program,
    schedule,
)
from trainer.layout.stages import chunks_of, cut_chunks, part_costs
from trainer.parallel.mesh import join_mesh
from trainer.parallel.pipeline import Pipeline

from .worlds import rank_file, run_world

SHAPES = [(p, c, m) for p in (1, 2, 3, 4, 8) for c in (1, 2, 3) for m in (1, 2, 4, 8, 24)]
SHAPES = [(p, c, m) for p, c, m in SHAPES if c == 1 or (p > 1 and m % p == 0)]


def simulate(stages: int, chunks: int, micros: int) -> int:
    """Run all stages with lines that keep their order; return the steps of the slowest."""
    actions = [deque(schedule(s, stages, chunks, micros)) for s in range(stages)]
    lines: dict[tuple[int, int, bool, bool], deque[tuple[int, int]]] = {}
    clock, times = [0] * stages, {}
    while any(actions):
        moved = False
        for stage, queue in enumerate(actions):
            if queue and _act(stage, queue[0], stages, chunks, lines, clock, times):
                queue.popleft()
                moved = True
        assert moved, "no stage can go on: deadlock"
    assert not any(lines.values()), "a message was never received"
    return max(clock)


def _act(stage, action: Action, stages, chunks, lines, clock, times) -> bool:
    """Do an action if its message is at the head of its line; send its own."""
    step = 1 if action.forward else -1
    virtual = action.chunk * stages + stage
    before, after = virtual - step, virtual + step
    last = stages * chunks
    ready = 0
    if 0 <= before < last:
        line = lines.setdefault(_line(before, virtual, stages, action.forward), deque())
        if not line:
            return False
        assert line[0] == (virtual, action.micro), "messages arrive in another order"
        line.popleft()
        ready = times[(before, action.micro, action.forward)]
    clock[stage] = max(clock[stage], ready) + (1 if action.forward else 2)
    times[(virtual, action.micro, action.forward)] = clock[stage]
    if 0 <= after < last:
        key = _line(virtual, after, stages, action.forward)
        lines.setdefault(key, deque()).append((after, action.micro))
    return True


def _line(source: int, target: int, stages: int, forward: bool) -> tuple[int, int, bool, bool]:
    return source % stages, target % stages, forward, source // stages != target // stages


@pytest.mark.parametrize(("stages", "chunks", "micros"), SHAPES)
def test_stages_never_wait_for_ever_and_messages_keep_their_order(
    stages: int, chunks: int, micros: int
) -> None:
    simulate(stages, chunks, micros)


@pytest.mark.parametrize(("stages", "chunks", "micros"), SHAPES)
def test_each_micro_batch_goes_forward_once_then_backward_once(
    stages: int, chunks: int, micros: int
) -> None:
    for stage in range(stages):
        done: set[tuple[int, int]] = set()
        actions = list(schedule(stage, stages, chunks, micros))
        assert len(set(actions)) == len(actions) == 2 * chunks * micros
        for action in actions:
            if action.forward:
                done.add((action.chunk, action.micro))
            assert (action.chunk, action.micro) in done


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_a_stage_keeps_no_more_micro_batches_than_stages_follow(stages: int) -> None:
    for stage in range(stages):
        held = most = 0
        for action in schedule(stage, stages, 1, 24):
            held += 1 if action.forward else -1
            most = max(most, held)
        assert most == stages - stage


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("micros", [8, 16])
def test_the_bubble_is_that_of_the_paper(stages: int, micros: int) -> None:
    # Narayanan et al. 2021: (p - 1) (t_f + t_b) idle a step, divided by the chunks if interleaved;
    # here forward takes 1, backward 2, a chunk of an interleaved stage as long as a whole stage.
    assert simulate(stages, 1, micros) == 3 * (micros + stages - 1)
    assert simulate(stages, 2, micros) == 3 * (2 * micros + stages - 1)


def rendezvous(stages: int, chunks: int, micros: int, training: bool) -> None:
    """Run all programs where no rank goes on before its message has been taken at both ends."""
    programs = [deque(program(s, stages, chunks, micros, training)) for s in range(stages)]
    done: set[tuple[int, Action]] = set()
    while any(programs):
        moved = False
        for stage, queue in enumerate(programs):
            while queue and isinstance(queue[0], Action):
                done.add((stage, queue.popleft()))
                moved = True
            if not queue:
                continue
            ends = [programs[end % stages] for end in (queue[0].source, queue[0].target)]
            if ends[0] and ends[1] and ends[0][0] == ends[1][0]:
                message = ends[0].popleft()
                assert ends[1].popleft() == message
                maker = Action(message.forward, message.source // stages, message.micro)
                reader = Action(message.forward, message.target // stages, message.micro)
                assert (message.source % stages, maker) in done, "sent before it was made"
                assert (message.target % stages, reader) not in done, "received after its use"
                moved = True
        assert moved, "every rank waits for another: deadlock"


@pytest.mark.parametrize(("stages", "chunks", "micros"), [s for s in SHAPES if s[0] > 1])
def test_messages_of_one_communicator_that_wait_for_both_ends_never_block(
    stages: int, chunks: int, micros: int
) -> None:
    rendezvous(stages, chunks, micros, training=True)
    rendezvous(stages, chunks, micros, training=False)


@pytest.mark.parametrize(("stages", "chunks", "least"), [(4, 1, 31), (8, 1, 31), (4, 2, 63)])
def test_half_of_the_messages_or_more_arrive_during_other_work(
    stages: int, chunks: int, least: int
) -> None:
    # The other half begins its way when its stage has nothing else to do: 1F1B without a spare
    # micro-batch. The first stage, which has a spare one, overlaps where chunks interleave.
    for stage in range(1, stages):
        steps = program(stage, stages, chunks, 32)
        posted = {item: i for i, item in enumerate(steps) if isinstance(item, Message)}
        ahead = 0
        for i, item in enumerate(steps):
            if isinstance(item, Action):
                needed = [
                    m for m in posted
                    if m.target == item.chunk * stages + stage
                    and (m.forward, m.micro) == (item.forward, item.micro)
                ]  # fmt: skip
                between = steps[posted[needed[0]] : i] if needed else ()
                ahead += any(isinstance(step, Action) for step in between)
        assert ahead >= least


def test_a_stage_holds_two_messages_each_way_and_a_few_more_with_chunks() -> None:
    assert [messages_held(stages, 1) for stages in (2, 4, 16)] == [SENDS + 2] * 3
    assert max(messages_held(stages, 3) for stages in (2, 4, 8)) == SENDS + 4


SIZE = 1009  # values of a message, as nothing else here has


def pass_messages(folder: Path, micros: int) -> None:
    """Be a stage of two that hands on what it received times its weight, and count messages."""
    mesh = join_mesh(Layout(pp=2), torch.device("cpu"))
    pipeline = Pipeline(mesh, 1)
    weight = torch.full((), 2.0 + mesh.rank, requires_grad=True)
    most = 0

    def count() -> None:
        nonlocal most
        found = [t for t in gc.get_objects() if type(t) is Tensor and t.numel() == SIZE]
        most = max(most, len({t.untyped_storage().data_ptr() for t in found}))

    def forward(chunk: int, micro: int, incoming: Tensor | None) -> Tensor:
        count()
        start = torch.full((SIZE,), 1.0 + micro) if incoming is None else incoming
        out = start * weight  # keeps what came in, and no more
        return out if incoming is None else out.sum()

    def backward(output: Tensor, is_loss: bool) -> None:
        count()
        output.backward()

    pipeline.run(micros, forward, backward, lambda micro: SIZE, torch.float32)
    found = {"most": most, "gradient": float(weight.grad)}
    rank_file(folder, "messages", mesh.rank).write_text(json.dumps(found))


@pytest.mark.dist
def test_messages_are_let_go_of_when_they_have_been_sent(tmp_path: Path) -> None:
    most = []
    for micros in (8, 32):
        run_world(2, "tests.trainer.parallel.test_pipeline:pass_messages", tmp_path, micros)
        found = [json.loads(rank_file(tmp_path, "messages", r).read_text()) for r in (0, 1)]
        most.append([f["most"] for f in found])
        total = SIZE * micros * (micros + 1) / 2  # of d/dw [(w_0 micro) w_1] over all
        assert math.isclose(found[0]["gradient"], 3 * total, rel_tol=1e-6)
        assert math.isclose(found[1]["gradient"], 2 * total, rel_tol=1e-6)
    # Two inputs kept on the first stage, what leaves and what comes: not one for each micro-batch.
    assert most[0] == most[1]
    assert max(most[0]) <= messages_held(2, 1) + 2


def test_an_evaluation_runs_every_chunk_of_every_micro_batch_forward() -> None:
    actions = list(forward_only(2, 3))
    assert all(action.forward for action in actions)
    assert sorted((a.micro, a.chunk) for a in actions) == [(m, c) for m in range(3) for c in (0, 1)]


@pytest.mark.parametrize("depth", [4, 7, 12, 48])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_chunks_hold_every_block_once_in_order(depth: int, count: int) -> None:
    chunks = cut_chunks(ModelConfig(width=64, depth=depth), count)
    assert [b for chunk in chunks for b in chunk.blocks] == list(range(depth))
    assert [c.is_first for c in chunks] == [True] + [False] * (count - 1)
    assert [c.is_last for c in chunks] == [False] * (count - 1) + [True]
    spread = [chunk for stage in range(count) for chunk in chunks_of(chunks, stage, count)]
    assert spread == chunks


def test_stages_with_embeddings_or_head_get_fewer_blocks_when_these_are_costly() -> None:
    model = ModelConfig(width=64, depth=9, text_width=8192, values_per_token=96, spread=[1.0] * 24)
    (embeddings, head), block = part_costs(model)
    assert min(embeddings, head, block) > 0
    chunks = cut_chunks(model, 3)
    costs = [len(c.blocks) * block + embeddings * c.is_first + head * c.is_last for c in chunks]
    naive = max(3 * block + embeddings, 3 * block + head)
    assert max(costs) <= naive
    assert max(costs) - min(costs) <= 2 * block
