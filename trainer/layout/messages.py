"""The schedule of pipeline stages, and the order of all their messages, the same on every rank.

Each stage's actions are known before the step begins, so every rank works out when each action
ends if all of them take their turn, and sorts the messages by that. Along one communicator whose
operations wait for each other, as NCCL's do, this order is what keeps ranks from waiting for ever:
of the messages that have not yet moved, the first has both its ends free. No wait of a rank for any
earlier operation can break that, and a receive stands in the order where its message is sent, which
is before it is needed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

SENDS = 2  # messages of a rank that may be on their way before it waits for the oldest


@dataclass(frozen=True)
class Action:
    """Run micro-batch ``micro`` through the stage's chunk ``chunk``, forward or backward."""

    forward: bool
    chunk: int
    micro: int


@dataclass(frozen=True)
class Message:
    """What the work on a micro-batch in one virtual stage hands to another.

    source, target: chunk * stages + stage.
    """

    forward: bool
    micro: int
    source: int
    target: int


def schedule(stage: int, stages: int, chunks: int, micros: int) -> Iterator[Action]:
    """Yield a stage's actions in order: warm-up, steady one-forward-one-backward, cool-down.

    ``chunks`` is the number a stage; above one, ``micros`` must be a multiple of ``stages``.
    """
    assert chunks == 1 or micros % stages == 0
    total = micros * chunks
    ahead = stages - 1 - stage if chunks == 1 else 2 * (stages - 1 - stage) + (chunks - 1) * stages
    ahead = min(ahead, total)
    for k in range(ahead):
        yield _action(True, k, stages, chunks)
    for k in range(total - ahead):
        yield _action(True, k + ahead, stages, chunks)
        yield _action(False, k, stages, chunks)
    for k in range(total - ahead, total):
        yield _action(False, k, stages, chunks)


def _action(forward: bool, k: int, stages: int, chunks: int) -> Action:
    if chunks == 1:
        return Action(forward, 0, k)
    turn, within = divmod(k, stages * chunks)
    chunk, offset = divmod(within, stages)
    return Action(forward, chunk if forward else chunks - 1 - chunk, turn * stages + offset)


def forward_only(chunks: int, micros: int) -> Iterator[Action]:
    """Yield the actions of an evaluation."""
    for micro in range(micros):
        for chunk in range(chunks):
            yield Action(True, chunk, micro)


@cache
def program(
    stage: int, stages: int, chunks: int, micros: int, training: bool = True
) -> tuple[Action | Message, ...]:
    """Return a stage's actions, and among them each message where its transport is started."""
    found: list[Action | Message] = []
    for where, action in _in_turn(stages, chunks, micros, training):
        if where == stage:
            found.append(action)
        message = outgoing(action, where, stages, chunks)
        if message is not None and stage in (where, message.target % stages):
            found.append(message)
    return tuple(found)


@cache
def messages_held(stages: int, chunks: int) -> int:
    """Return how many messages a stage holds at most, beside those it has begun to work on.

    ``SENDS`` that leave, and all receives that are posted before they are needed.
    """
    posted, most = [0] * stages, 0
    for where, action in _in_turn(stages, chunks, 4 * stages, True):
        posted[where] -= incoming(action, where, stages, chunks) is not None
        message = outgoing(action, where, stages, chunks)
        if message is not None:
            posted[message.target % stages] += 1
            most = max(most, *posted)
    return SENDS + most


@cache
def _in_turn(
    stages: int, chunks: int, micros: int, training: bool
) -> tuple[tuple[int, Action], ...]:
    """Return (stage, action) of all stages in the order in which they end."""
    queues = [
        list(schedule(s, stages, chunks, micros) if training else forward_only(chunks, micros))
        for s in range(stages)
    ]
    ends = sorted(_ends(queues, chunks), key=lambda end: end[:2])
    return tuple((stage, action) for _, stage, action in ends)


def outgoing(action: Action, stage: int, stages: int, chunks: int) -> Message | None:
    """Return the message that an action ends with, None at the ends of the pipeline."""
    source = action.chunk * stages + stage
    target = source + (1 if action.forward else -1)
    inside = 0 <= target < stages * chunks
    return Message(action.forward, action.micro, source, target) if inside else None


def incoming(action: Action, stage: int, stages: int, chunks: int) -> Message | None:
    """Return the message that an action begins with, None at the ends of the pipeline."""
    target = action.chunk * stages + stage
    source = target - (1 if action.forward else -1)
    inside = 0 <= source < stages * chunks
    return Message(action.forward, action.micro, source, target) if inside else None


def _ends(queues: list[list[Action]], chunks: int) -> list[tuple[int, int, Action]]:
    """Return (when it ends, stage, action) where a backward takes twice as long as a forward."""
    stages, waiting = len(queues), [deque(queue) for queue in queues]
    clock, ready, ends = [0] * stages, dict[Message, int](), list[tuple[int, int, Action]]()
    while any(waiting):
        moved = False
        for stage, queue in enumerate(waiting):
            while queue:
                needed = incoming(queue[0], stage, stages, chunks)
                if needed is not None and needed not in ready:
                    break
                action, moved = queue.popleft(), True
                begin = max(clock[stage], 0 if needed is None else ready[needed])
                clock[stage] = begin + (1 if action.forward else 2)
                ends.append((clock[stage], stage, action))
                message = outgoing(action, stage, stages, chunks)
                if message is not None:
                    ready[message] = clock[stage]
        assert moved, "no stage can go on: deadlock"
    return ends
