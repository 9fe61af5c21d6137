"""Mean and spread of latent channels, gathered clip by clip."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class ChannelStatistics:
    """Running mean and standard deviation of each latent channel over its valid values."""

    count: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    total: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def add(self, latent: Tensor, valid: Tensor) -> None:
        """Add one latent (C, f, h, w) with its mask."""
        values = latent.double() * valid
        self.count = self.count + valid.sum(dim=(1, 2, 3))
        self.total = self.total + values.sum(dim=(1, 2, 3))
        self.squares = self.squares + values.square().sum(dim=(1, 2, 3))

    def merge(self, sums: list[list[float]]) -> None:
        """Add what other statistics gathered, as their ``sums``."""
        count, total, squares = torch.tensor(sums, dtype=torch.float64)
        self.count, self.total = self.count + count, self.total + total
        self.squares = self.squares + squares

    @property
    def sums(self) -> list[list[float]]:
        """Counts, sums and sums of squares a channel, exact in JSON."""
        return [self.count.tolist(), self.total.tolist(), self.squares.tolist()]

    def summary(self) -> dict[str, list[float]]:
        """Return mean and std a channel."""
        mean = self.total / self.count
        std = (self.squares / self.count - mean.square()).clamp(min=0).sqrt()
        return {"mean": mean.tolist(), "std": std.tolist()}
