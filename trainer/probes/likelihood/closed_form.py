"""Denoisers in closed form, called as networks are: the linear-Gaussian one and the exact one.

Both see what a network sees, x_t of all clips of a pack, and may be given the first tokens clean: a
clip then has two spans, of which the second is given.
All clips of a pack must be of one world, hence of one size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from data.worlds.tiny.world import World
from models.codec.codec import Codec
from models.pack import TokenPack
from trainer.config import RunConfig
from trainer.probes.likelihood.gaussian import Array, Conditional, Gaussian, fit_gaussian
from trainer.probes.likelihood.pairs import to_item

SAME = 1e-6  # squared distance of two known halves that are one


@dataclass(frozen=True)
class Places:
    """Which values of a clip carry loss, and which of those are given.

    valid: (S, V). known: (D,) of the D valid ones, True for those that are given clean.
    """

    valid: Bool[Tensor, "S V"]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, valid: Bool[Tensor, "S V"], first: int) -> "Places":
        """Build it for clips whose ``first`` tokens are given; 0 gives none."""
        rows = torch.arange(len(valid)).unsqueeze(1).expand_as(valid)
        return cls(valid, (rows[valid] < first).numpy())

    def values(self, rows: Float[Tensor, "N S V"]) -> Array:
        """Return the values that carry loss or are given, (N, D)."""
        return rows[:, self.valid].numpy().astype(np.float64)

    def tokens(self, values: Array) -> Float[Tensor, "N*S V"]:
        """Put values that are not given (N, B) in their places, zeros elsewhere."""
        flat = np.zeros((len(values), len(self.known)))
        flat[:, ~self.known] = values
        found = torch.zeros(len(values), *self.valid.shape)
        found[:, self.valid] = torch.from_numpy(flat).float()
        return found.flatten(0, 1)


def unpacked(places: Places, pack: TokenPack, x_t: Tensor, t: Tensor) -> tuple[Array, Array]:
    """Return x_t of each clip (N, D), and its time (N,): that of its first span."""
    clips = len(pack.lengths)
    rows = x_t.view(clips, *places.valid.shape)
    return places.values(rows), t.view(clips, -1)[:, 0].double().numpy()


@dataclass(frozen=True)
class GaussianDenoiser:
    """The best linear denoiser of a world's clips; see gaussian.py."""

    gaussian: Gaussian
    places: Places
    rest: Conditional | None  # where something is given

    @classmethod
    def fit(cls, clips: Float[Tensor, "N S V"], places: Places) -> "GaussianDenoiser":
        """Fit lawful clips."""
        gaussian = fit_gaussian(places.values(clips))
        return cls(gaussian, places, gaussian.given(places.known) if places.known.any() else None)

    def __call__(self, pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the velocity of every token; zeros where nothing is asked for."""
        values, times = unpacked(self.places, pack, x_t, t)
        if self.rest is None:
            return self.places.tokens(self.gaussian.velocity(values, times))
        known = self.places.known
        means = self.rest.means(values[:, known])
        return self.places.tokens(self.rest.about.velocity(values[:, ~known], times, means))


@dataclass(frozen=True)
class ExactDenoiser:
    """The best denoiser there is, of a world with a list of all its clips.

    clips: (J, D) all of them. shares: (J,) their probabilities. See data/worlds/tiny/finite.py.
    """

    clips: Array
    shares: Array
    places: Places

    @classmethod
    def build(
        cls, run: RunConfig, codec: Codec, world: World[Any], places: Places
    ) -> "ExactDenoiser":
        """List a finite world's clips as tokens."""
        scenes = world.scenes()
        items = (
            to_item(codec, world.render(world.unroll(scene)), run.text.width) for scene, _ in scenes
        )
        clips = places.values(torch.stack([item.tokens for item in items]))
        return cls(clips, np.array([share for _, share in scenes]), places)

    def __call__(self, pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
        """Predict the velocity of every token; zeros where nothing is asked for."""
        values, times = unpacked(self.places, pack, x_t, t)
        known, time = self.places.known, times[:, None]
        seen, asked = values[:, ~known], self.clips[:, ~known]
        norms = (asked**2).sum(1)
        logits = (time * (seen @ asked.T) - time**2 * norms / 2) / (1 - time) ** 2
        logits += np.log(self.shares)
        if known.any():
            logits[~self._begin_alike(values[:, known])] = -np.inf
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return self.places.tokens((weights @ asked - seen) / (1 - time))

    def _begin_alike(self, first: Array) -> NDArray[np.bool_]:
        """Return which clips begin as given ones do, (N, J)."""
        known = self.clips[:, self.places.known]
        gaps = (known**2).sum(1) - 2 * first @ known.T + (first**2).sum(1)[:, None]
        alike: NDArray[np.bool_] = gaps < SAME * known.shape[1]
        return alike
