"""Pipeline parallelism: the order of a stage's work, and the messages between stages.

One forward, one backward (Narayanan et al. 2021): a stage keeps at most as many micro-batches as
stages follow it. With several chunks a stage, they interleave, which shortens the bubble.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.parallel.mesh import Mesh


@dataclass(frozen=True)
class Action:
    """Run micro-batch ``micro`` through the stage's chunk ``chunk``, forward or backward."""

    forward: bool
    chunk: int
    micro: int


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


class Pipeline:
    """Carry out a stage's schedule.

    forward(chunk, micro, incoming) returns what goes to the next stage, or the loss on the last.
    backward(output, gradient) runs the backward pass; the loss has no gradient from outside.
    size(micro) is the number of values of a message between stages.
    """

    def __init__(self, mesh: Mesh, chunks: int) -> None:
        self._mesh, self.chunks = mesh, chunks
        self._stage, self._stages = mesh.place.pp, mesh.layout.pp
        self._ranks = mesh.layout.members(mesh.rank, "pp")
        self._sends: list[tuple[dist.Work, Tensor]] = []

    def run(
        self,
        actions: Iterator[Action],
        forward: Callable[[int, int, Tensor | None], Tensor],
        backward: Callable[[Tensor, Tensor | None], None],
        size: Callable[[int], int],
        dtype: torch.dtype,
    ) -> None:
        """Run the actions; returns when every message has left."""
        kept: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = {}
        for action in actions:
            key = (action.chunk, action.micro)
            if action.forward:
                incoming = self._receive(True, action, size(action.micro), dtype)
                if incoming is not None:
                    incoming.requires_grad_(torch.is_grad_enabled())
                output = forward(action.chunk, action.micro, incoming)
                self._send(True, action, output)
                if torch.is_grad_enabled():
                    kept[key] = incoming, output
            else:
                incoming, output = kept.pop(key)
                backward(output, self._receive(False, action, output.numel(), output.dtype))
                if incoming is not None:
                    assert incoming.grad is not None
                    self._send(False, action, incoming.grad)
        for work, _ in self._sends:
            work.wait()
        self._sends.clear()

    def _neighbour(self, forward: bool, sending: bool, chunk: int) -> tuple[int, str, int] | None:
        """Return (global rank, group, virtual stage sent from) of a message; None at the ends."""
        step = 1 if forward == sending else -1
        virtual = chunk * self._stages + self._stage
        other = virtual + step
        if not 0 <= other < self._stages * self.chunks:
            return None
        wraps = other // self._stages != chunk
        kind = f"pp{'_wrap' if wraps else ''}_{'forward' if forward else 'backward'}"
        return self._ranks[other % self._stages], kind, virtual if sending else other

    def _send(self, forward: bool, action: Action, tensor: Tensor) -> None:
        neighbour = self._neighbour(forward, True, action.chunk)
        if neighbour is not None:
            rank, group, source = neighbour
            message = tensor.detach().contiguous()
            tag = self._tag(forward, source, action.micro)
            work = dist.isend(message, rank, group=self._mesh.groups[group], tag=tag)
            assert work is not None
            self._sends.append((work, message))

    def _receive(
        self, forward: bool, action: Action, size: int, dtype: torch.dtype
    ) -> Tensor | None:
        neighbour = self._neighbour(forward, False, action.chunk)
        if neighbour is None:
            return None
        rank, group, source = neighbour
        message = torch.empty(size, dtype=dtype, device=self._mesh.device)
        tag = self._tag(forward, source, action.micro)
        dist.recv(message, rank, group=self._mesh.groups[group], tag=tag)
        return message

    def _tag(self, forward: bool, source: int, micro: int) -> int:
        return (micro * self._stages * self.chunks + source) * 2 + forward
