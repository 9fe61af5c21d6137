"""The quiet y-axis: validation on fixed clips with fixed noise and stratified times."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.loader import load_fixed
from models.dit import DiT
from models.flow import flow_errors
from models.pack import TokenPack
from trainer.collate import Collator, Encoded
from trainer.config import RunConfig
from trainer.parallel.layout import Layout
from trainer.rng import normal

_GOLDEN = (5**0.5 - 1) / 2
NOISE_DRAWS = 2  # independent draws of the noise; their difference measures the noise of the loss


@dataclass(frozen=True)
class _Item:
    pack: TokenPack
    x_0: Tensor
    t: Tensor
    clip: int
    draw: int
    values: float


@dataclass(frozen=True)
class Validation:
    """A split's validation.

    loss: mean squared velocity error over valid values and uniform times.
    noise: standard error of ``loss`` over noise draws, the clips being fixed.
    by_time: loss per stratum of t, from noise (t near 0) to data (t near 1).
    clips, tokens: how much was looked at.
    """

    loss: float
    noise: float
    by_time: list[float]
    clips: int
    tokens: int


class Validator:
    """Hold the fixed clips of one split and measure a model on them."""

    def __init__(
        self, run: RunConfig, split: str, collator: Collator, layout: Layout, samples: int
    ) -> None:
        self._run, self._layout, self._times = run, layout, run.validation.times
        clips = [collator.encode(s) for s in load_fixed(run.data, split, samples)]
        if not clips:
            raise ValueError(
                f"validation.splits={split}: holds no clips. Remove it or ingest some."
            )
        self.num_clips, self.num_tokens = len(clips), sum(len(c.tokens) for c in clips)
        mine = [i for i in range(len(clips)) if i % layout.world == layout.rank]
        self._items = [
            self._item(collator, clips[i], i, draw) for i in mine for draw in range(NOISE_DRAWS)
        ]

    def _item(self, collator: Collator, clip: Encoded, index: int, draw: int) -> _Item:
        """Lay one clip side by side with itself, once a stratum of time."""
        seed, strata = self._run.validation.noise_seed, self._times
        pack = collator.pack([clip] * strata, [True] * strata)
        # Golden-ratio offsets spread the times of all clips evenly over (0, 1): a fixed
        # quadrature, so that only the noise x_0 differs between draws.
        offset = index * _GOLDEN % 1.0
        noise = [
            normal(tuple(clip.tokens.shape), seed, f"val-noise-{draw}", clip.key, j)
            for j in range(strata)
        ]
        t = (torch.arange(strata) + offset) / strata
        values = float(pack.valid.sum()) / strata
        return _Item(pack, torch.cat(noise), t.to(torch.float32), index, draw, values)

    @torch.no_grad()
    def measure(self, model: DiT, draws: int = NOISE_DRAWS) -> Validation:
        """Measure a model; with one draw the noise is not known and given as nan."""
        device, strata = self._layout.device, self._times
        errors = torch.zeros(self.num_clips, NOISE_DRAWS, strata, dtype=torch.float64)
        values = torch.zeros(self.num_clips, dtype=torch.float64)
        for item in self._items:
            if item.draw < draws:
                pack = item.pack.to(device)
                error = flow_errors(model, pack, item.x_0.to(device), item.t.to(device))
                errors[item.clip, item.draw] = error.double().view(strata, -1).sum(1).cpu()
                values[item.clip] = item.values
        summed = self._layout.sum(*errors.flatten().tolist(), *values.tolist())
        errors = torch.tensor(summed[: errors.numel()], dtype=torch.float64).view_as(errors)
        values = torch.tensor(summed[errors.numel() :], dtype=torch.float64)
        return self._summarise(errors[:, :draws], values)

    def _summarise(self, errors: Tensor, values: Tensor) -> Validation:
        """Reduce errors (clips, draws, strata) to a loss with its noise."""
        draws, strata = errors.shape[1], errors.shape[2]
        total = values.sum()
        noise = float("nan")
        if draws == 2:
            # Var of the mean of two draws, summed over independent clips: (d / 2)^2 each.
            difference = (errors[:, 0] - errors[:, 1]).sum(1) / strata
            noise = float((difference / 2).square().sum().sqrt() / total)
        return Validation(
            loss=float(errors.sum() / (draws * strata) / total),
            noise=noise,
            by_time=(errors.sum(dim=(0, 1)) / draws / total).tolist(),
            clips=self.num_clips,
            tokens=self.num_tokens,
        )
