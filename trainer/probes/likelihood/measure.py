"""Squared velocity errors of crossed pairs, under a noise and times that a whole pair shares."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.objective import Draw, Objective
from models.pack import TokenPack
from models.spans import given_frames
from trainer.config import CaptionUse
from trainer.diffusion.collate import Collator, PackItem
from trainer.parallel.mesh import Mesh, alone
from trainer.parallel.workers import own_share
from trainer.probes.likelihood.margins import PairErrors
from trainer.probes.likelihood.pairs import NAMES, Pair
from trainer.rng import normal

Predict = Callable[[TokenPack, Tensor, Tensor], Tensor]
STRATA = 8  # of t
PACK_TOKENS = 8192  # of one pass through a network
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Look:
    """How pairs are looked at: the seed of their noise, and the latent frames given clean."""

    seed: int
    frames: int = 0

    def times(self, objective: Objective, index: int) -> Tensor:
        """Return one time in each stratum, (STRATA,), other ones for other pairs."""
        # Golden-ratio offsets spread the times of all pairs evenly over their strata.
        return objective.strata(STRATA, (index + 0.5) * _GOLDEN % 1.0)

    def draw(self, pair: Pair, stratum: int) -> Draw:
        """Return the draws of a pair in a stratum, the same for its four clips."""

        def drawn(purpose: str, shape: tuple[int, ...]) -> Tensor:
            return normal(shape, self.seed, f"probe-{purpose}", pair.key, stratum)

        return drawn

    def at(self, item: PackItem) -> PackItem:
        """Return a clip of which the first frames are given, the others alone carry loss."""
        if not self.frames:
            return item
        return replace(item, spans=given_frames(item.size, range(self.frames)))


@torch.no_grad()
def measure_pairs(
    predict: Predict,
    objective: Objective,
    collator: Collator,
    pairs: list[Pair],
    look: Look,
    mesh: Mesh | None = None,
) -> PairErrors:
    """Measure all pairs in all strata of t; workers of a mesh share the packs. Collective."""
    tokens, mesh = len(pairs[0].clips["aa"].tokens), mesh or alone()
    at_once = max(1, PACK_TOKENS // (len(NAMES) * STRATA * tokens))
    errors = np.zeros((len(pairs), STRATA, len(NAMES)))
    for start in own_share(range(0, len(pairs), at_once), mesh):
        part = slice(start, start + at_once)
        errors[part] = _measure(predict, objective, collator, pairs[part], start, look)
    if mesh.world > 1:  # each number is one worker's, the others add zeros
        errors = np.array(mesh.sum(*errors.flatten().tolist())).reshape(errors.shape)
    aa, bb, ab, ba = np.moveaxis(errors, 2, 0)
    return PairErrors(kept=aa + bb, broken=ab + ba)


def _measure(
    predict: Predict,
    objective: Objective,
    collator: Collator,
    pairs: list[Pair],
    number: int,
    look: Look,
) -> np.ndarray:
    """Return summed squared errors of some pairs, (pairs, strata, names)."""
    items, noise, times = [], [], []
    for index, pair in enumerate(pairs, number):
        t = look.times(objective, index)
        for stratum in range(STRATA):
            x_0 = objective.noise(look.draw(pair, stratum), tuple(pair.clips["aa"].tokens.shape))
            for name in NAMES:
                items.append(look.at(pair.clips[name]))
                noise.append(x_0)
                times.append(t[stratum])
    pack = collator.pack(items, [CaptionUse.dropped] * len(items))
    t = pack.times(pack.of_spans(torch.stack(times).float()))
    errors = objective.measured(predict, pack, torch.cat(noise), t)
    sums = torch.zeros(len(items), dtype=torch.float64)
    sums.index_add_(0, pack.segment, errors.double())
    return sums.view(len(pairs), STRATA, len(NAMES)).numpy()
