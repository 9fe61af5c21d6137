"""Pipeline parallelism: a stage's work, and the messages between stages.

One forward, one backward (Narayanan et al. 2021): a stage keeps at most as many micro-batches as
stages follow it. With several chunks a stage, they interleave, which shortens the bubble. All
messages of a line of stages go over one communicator, in the order of ``trainer.layout.messages``:
neighbours in it are one batch, a receive is posted before the work during which its message comes,
and a message is let go of when two more have been sent. Over NCCL none of it has run.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.layout.messages import SENDS, Action, Message, incoming, outgoing, program
from trainer.parallel.mesh import Mesh


class Pipeline:
    """Carry out a stage's schedule.

    forward(chunk, micro, incoming) returns what goes to the next stage, or the loss on the last.
    backward(output, is_loss) runs the backward pass from a scalar: the loss, or what stands for a
    message whose gradient has arrived. size(micro) is the number of values of a message.
    """

    def __init__(self, mesh: Mesh, chunks: int) -> None:
        self._mesh, self.chunks = mesh, chunks
        self._stage, self._stages = mesh.place.pp, mesh.layout.pp
        self._ranks = mesh.layout.members(mesh.rank, "pp")
        self._sends: deque[tuple[list[dist.Work], Tensor]] = deque()
        self._receives: dict[Message, tuple[list[dist.Work], Tensor]] = {}
        if self._stages > 1:
            # NCCL makes a communicator in its first call, which all ranks must take part in.
            dist.all_reduce(torch.zeros(1, device=mesh.device), group=mesh.groups["pp"])

    def run(
        self,
        micros: int,
        forward: Callable[[int, int, Tensor | None], Tensor],
        backward: Callable[[Tensor, bool], None] | None,
        size: Callable[[int], int],
        dtype: torch.dtype,
    ) -> None:
        """Run micro-batches, without ``backward`` forward only; returns when all messages left."""
        place = self._stage, self._stages, self.chunks
        kept: dict[tuple[int, int], tuple[Tensor | None, _Sent | Tensor]] = {}
        results: dict[Message, Tensor] = {}
        batch: list[Message] = []
        output: Tensor | None
        for item in program(*place, micros, backward is not None):
            if isinstance(item, Message):
                batch.append(item)
                continue
            self._post(batch, results, size, dtype)
            batch = []
            leaving = outgoing(item, *place)
            received = self._take(incoming(item, *place))
            if item.forward:
                output = self._forward(item, forward, received, kept, leaving is not None)
            else:
                assert backward is not None
                output = _backward(backward, received, *kept.pop((item.chunk, item.micro)))
            if leaving is not None:
                assert output is not None
                results[leaving] = output.detach().contiguous()
            del output, received  # neither outlives its use
        self._post(batch, results, size, dtype)
        self._let_go(0)
        assert not results
        assert not self._receives

    def _forward(
        self,
        action: Action,
        forward: Callable[[int, int, Tensor | None], Tensor],
        received: Tensor | None,
        kept: dict[tuple[int, int], Any],
        leaves: bool,
    ) -> Tensor:
        if received is not None:
            received.requires_grad_(torch.is_grad_enabled())
        output = forward(action.chunk, action.micro, received)
        if torch.is_grad_enabled():
            kept[action.chunk, action.micro] = received, _Sent(output) if leaves else output
        return output

    def _post(
        self,
        batch: list[Message],
        results: dict[Message, Tensor],
        size: Callable[[int], int],
        dtype: torch.dtype,
    ) -> None:
        """Start the transport of messages that are neighbours in the order."""
        if not batch:
            return
        operations, group = [], self._mesh.groups["pp"]
        for message in batch:
            sends = message.source % self._stages == self._stage
            other = message.target if sends else message.source
            if sends:
                tensor = results.pop(message)
            else:
                tensor = torch.empty(size(message.micro), dtype=dtype, device=self._mesh.device)
            operations.append(
                dist.P2POp(
                    dist.isend if sends else dist.irecv,
                    tensor,
                    self._ranks[other % self._stages],
                    group,
                    self._tag(message),
                )
            )
        works = dist.batch_isend_irecv(operations)
        whole = len(works) != len(operations)  # NCCL gives one for all
        for number, (message, operation) in enumerate(zip(batch, operations, strict=True)):
            own = works if whole else [works[number]]
            if operation.op is dist.isend:
                self._sends.append((own, operation.tensor))
            else:
                self._receives[message] = own, operation.tensor
        del operations, operation, tensor
        self._let_go(SENDS)

    def _take(self, message: Message | None) -> Tensor | None:
        if message is None:
            return None
        works, tensor = self._receives.pop(message)
        for work in works:
            work.wait()
        return tensor

    def _let_go(self, held: int) -> None:
        while len(self._sends) > held:
            for work in self._sends.popleft()[0]:
                work.wait()

    def _tag(self, message: Message) -> int:
        return (message.micro * self._stages * self.chunks + message.source) * 2 + message.forward


def _backward(
    backward: Callable[[Tensor, bool], None],
    gradient: Tensor | None,
    received: Tensor | None,
    output: "_Sent | Tensor",
) -> Tensor | None:
    """Run the backward pass of what is kept; return the gradient of what had been received."""
    if isinstance(output, _Sent):
        assert gradient is not None
        backward(output.pull(gradient), False)
    else:
        backward(output, True)
    return None if received is None else received.grad


class _Sent:
    """The graph behind a message without its values, which need not wait for their gradient."""

    def __init__(self, message: Tensor) -> None:
        self._gradient: list[Tensor] = []
        self._zero: Tensor = _Pull.apply(message, self._gradient)

    def pull(self, gradient: Tensor) -> Tensor:
        """Return a scalar whose backward pass is that of the message with this gradient."""
        self._gradient.append(gradient)
        return self._zero


class _Pull(torch.autograd.Function):
    """A zero that hands on a gradient which its maker learns later."""

    @staticmethod
    def forward(ctx: Any, message: Tensor, gradient: list[Tensor]) -> Tensor:
        ctx.gradient = gradient
        return message.new_zeros(())

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.pop() * scale, None
