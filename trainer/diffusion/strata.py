"""A validation's sums by stratum of time, so that another weighting of noise levels is no rerun."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from models.objective import Draw, Objective
from trainer.diffusion.times_drawn import number_of_strata

_SHARES = 512  # times drawn of each length of clip, to tell how much is trained in a stratum


@dataclass(frozen=True)
class Strata:
    """Sums over the clips by stratum: equal parts of ``objective.t_range``, from noise to data.

    errors: summed squared errors, averaged over noise draws; values: how many values they are of,
    so that errors / values is the loss of a stratum; variance: of ``errors`` over noise draws.
    clips: errors of each clip at each of its times, to four digits, in the order of
    ``data.loading.loader.load_fixed``; clip_values: how many values each clip has.
    trained: share of the training times in each stratum, for clips as long as these. It is no part
    of what was measured.
    """

    errors: list[float]
    values: list[float]
    variance: list[float]
    clips: list[list[float]]
    clip_values: list[float]
    trained: list[float] = field(compare=False)

    @property
    def losses(self) -> list[float]:
        """The loss of each stratum; nan where no clip was looked at."""
        pairs = zip(self.errors, self.values, strict=True)
        return [e / v if v else float("nan") for e, v in pairs]


def strata_of(
    errors: Float[Tensor, "N draws T"],
    values: Float[Tensor, " N"],
    offsets: Sequence[float],
    trained: list[float],
) -> Strata:
    """Sum errors of clips, draws and times by stratum.

    offsets: where the times of each clip lie in their T equal parts, in [0, 1).
    """
    draws, times = errors.shape[1:]
    strata = number_of_strata(times)
    finer = strata // times
    inner = torch.tensor([min(int(offset * finer), finer - 1) for offset in offsets])
    place = torch.arange(times) * finer + inner.unsqueeze(1)  # (N, T)
    means = errors.mean(1)
    apart = errors[:, 0] - errors[:, 1] if draws == 2 else torch.full_like(means, torch.nan)

    def summed(parts: Tensor) -> list[float]:
        total = torch.zeros(strata, dtype=torch.float64)
        found: list[float] = total.index_add(0, place.flatten(), parts.flatten()).tolist()
        return found

    return Strata(
        errors=summed(means),
        values=summed(values.unsqueeze(1).expand_as(means)),
        variance=summed((apart / 2).square()),
        clips=[[float(f"{e:.4g}") for e in row] for row in means.tolist()],
        clip_values=values.tolist(),
        trained=trained,
    )


def trained_shares(
    objective: Objective, tokens: Sequence[int], window: Sequence[float], strata: int
) -> list[float]:
    """Return the share of training times in each stratum, for clips of so many tokens.

    Measured by what the objective makes of even shares of its draws, so that it holds for any.
    """
    even = (torch.arange(_SHARES, dtype=torch.float64) + 0.5) / _SHARES
    draws = [_always(normal) for normal in torch.special.ndtri(even).float()]
    low, high = window
    shares = torch.zeros(strata, dtype=torch.float64)
    for length in sorted(set(tokens)):
        t = objective.times(draws, torch.full((_SHARES,), float(length))).double()
        place = ((t - low) / (high - low) * strata).long().clamp(0, strata - 1)
        weight = length * tokens.count(length) / _SHARES
        shares.index_add_(0, place, torch.full((_SHARES,), weight, dtype=torch.float64))
    found: list[float] = (shares / shares.sum()).tolist()
    return found


def _always(normal: Tensor) -> Draw:
    def draw(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return normal.expand(shape)

    return draw
