"""A network as the trainer sees it, whatever its architecture, and its initial weights."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.architecture import Initial, Weight, find_architecture, specification_of
from models.attention import Attend, attend_segments
from models.config import ModelConfig
from models.pack import TokenPack
from models.precondition import Coefficients, velocity_coefficients


class Network(Protocol):
    """Predict one value of each value of a pack: velocities x_1 - x_0.

    Beside what stands here it is an ``nn.Module`` whose parameters are those of its specification.
    A pipeline stage runs its steps one by one and sends the fields of its stream onward.
    """

    config: ModelConfig
    blocks: nn.ModuleList
    stream: Callable[..., Any]  # a dataclass with the fields of ``Specification.stream``

    def __call__(
        self, pack: TokenPack, x_t: Float[Tensor, "S V"], t: Float[Tensor, " T"]
    ) -> Float[Tensor, "S V"]:
        """Predict at ``x_t``; ``t`` in [0, 1] is each span's time, 1 is data."""

    def precondition(self, pack: TokenPack, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (c_in, c_skip, c_out) of each row and value, see ``models.precondition``."""

    def embed(self, pack: TokenPack, x: Float[Tensor, "S V"], t: Float[Tensor, " T"]) -> Any:
        """Turn preconditioned values, times and captions into a stream."""

    def run_blocks(self, pack: TokenPack, stream: Any, blocks: Sequence[int] | None = None) -> Any:
        """Map a stream through all blocks, or those of the given numbers."""

    def read_out(self, pack: TokenPack, stream: Any) -> Float[Tensor, "S V"]:
        """Turn a stream into the network's prediction, before c_skip and c_out."""

    def restore_buffers(self, device: torch.device) -> None:
        """Set the buffers, which stay fp32 whatever the parameters are."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As of ``nn.Module``."""


def build_network(
    config: ModelConfig,
    attend: Attend = attend_segments,
    precondition: Coefficients = velocity_coefficients,
) -> nn.Module:
    """Build a network of the config's architecture; it is a :class:`Network`.

    precondition: what the network's output stands for, see ``models.precondition``. Raises
    ValueError where its parameters are not those of its specification: a layout, which cuts by the
    one, would leave the other without values.
    """
    architecture = find_architecture(config.architecture)
    network = cast(nn.Module, architecture.build(config, attend, precondition))
    found = {name: tuple(p.shape) for name, p in network.named_parameters()}
    expected = specification_of(config).shapes
    for name in [*found, *expected]:
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"model.architecture={config.architecture}: parameter {name} has shape "
                f"{found.get(name)}, its specification says {expected.get(name)}. Correct either."
            )
    return network


def initial_values(config: ModelConfig, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter's name and initial value, in the order of ``named_parameters``.

    By role: matrices at 1/sqrt(fan_in), output layers and modulation at zero. The DiT's gates of
    the residual branches start at one, not at zero as in adaLN-zero: with a zero head the output is
    zero all the same, and short runs learn faster (decision 004). One stream of draws, so that
    a process which keeps parts of a few parameters gets what the whole model would hold there.
    """
    for name, weight in specification_of(config).weights.items():
        yield name, _initial_value(weight, generator)


def _initial_value(weight: Weight, generator: torch.Generator) -> Tensor:
    value, initial = torch.zeros(weight.shape), weight.initial
    if isinstance(initial, tuple):
        return torch.tensor(initial).repeat_interleave(weight.shape[0] // len(initial))
    if initial is Initial.fan_in:
        return value.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
    if initial is Initial.normal:
        return value.normal_(0.0, 1.0, generator=generator)
    return value.fill_(1.0) if initial is Initial.ones else value
