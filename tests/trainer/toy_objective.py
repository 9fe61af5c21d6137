"""A toy objective, whole in this file: tell values that were replaced by noise (masked modelling).

A segment's time is the share of values that are left; the network's output is taken as the data
itself. After Chang et al. 2022 (MaskGIT), with noise in the place of a mask token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.objective import Draw, ObjectiveKind, Route, Settings, Walk
from models.pack import TokenPack
from models.precondition import Coefficients

Network = Callable[[TokenPack, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Masked:
    """Replace rows, and score what is said of them; ``least`` of all rows are left."""

    least: float = 0.0

    @property
    def coefficients(self) -> Coefficients:
        """The network's input and output stand for themselves."""
        return _plain

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        """Return the values that replace a sample's own."""
        return draw("mask", shape)

    def times(self, draws: Sequence[Draw], tokens: Tensor) -> Tensor:
        """Return the share that is left, uniform in [least, 1]."""
        normal = torch.cat([draw("time", (1,)) for draw in draws])
        return self.least + (1 - self.least) * torch.special.ndtr(normal)

    def inputs(self, pack: TokenPack, x_0: Tensor, t: Tensor) -> Tensor:
        """Return the rows, some of them replaced."""
        return torch.where(self._masked(pack, x_0, t), x_0, pack.latent)

    def errors(self, network: Network, pack: TokenPack, x_0: Tensor, t: Tensor) -> Tensor:
        """Return squared errors of what was replaced."""
        said = network(pack, self.inputs(pack, x_0, t), t)
        counts = self._masked(pack, x_0, t) & pack.valid
        return ((said - pack.latent) * counts).square().sum(dim=-1)

    measured = errors

    def strata(self, count: int, offset: float) -> Tensor:
        """Return shares spread evenly."""
        return (torch.arange(count) + offset) / count

    def walk(self, x: Tensor, tokens: int, route: Route, source: Tensor | None = None) -> Walk:
        """Return what is said of noise alone, in one step."""
        said = yield x, 0.0
        return said

    def _masked(self, pack: TokenPack, x_0: Tensor, t: Tensor) -> Tensor:
        # The first value of the noise decides over its row.
        left = t.index_select(0, pack.span)
        return torch.special.ndtr(x_0[:, :1]) >= left.unsqueeze(-1)


def _plain(t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    one = torch.ones_like(t * sigma)
    return one, torch.zeros_like(one), one


def build(settings: Settings) -> Masked:
    """Build it from a run's settings."""
    return Masked(settings.options.get("least", 0.0))


OBJECTIVE = ObjectiveKind(build, options={"least": "least share of values that are left"})
