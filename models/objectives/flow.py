"""Rectified flow: one function per equation (Liu et al. 2022; Lipman et al. 2022).

x_0 is noise, x_1 data, t = 0 noise and t = 1 data:

    x_t = (1 - t) x_0 + t x_1,    velocity = x_1 - x_0

The network may predict the velocity, the data or the noise, and squared velocity errors may weigh
more at some times than at others. Validation measures them unweighted, so that its loss compares
runs of any of these settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.objective import (
    Draw,
    ObjectiveKind,
    Prediction,
    Route,
    Settings,
    Spacing,
    Walk,
    Weighting,
)
from models.pack import TokenPack
from models.precondition import (
    Coefficients,
    data_coefficients,
    noise_coefficients,
    velocity_coefficients,
)
from models.sampling import METHODS, flow_edit
from models.times import PLAIN, STANDARD, Density, clip_shift, density_of, shifted

MOST_SNR = 5.0  # gamma of Hang et al. 2023
SIGMOID_BIAS = 2.0  # sigmoid(2 - lambda): Kingma and Gao 2023
WHOLE = (0.0, 1.0)


def interpolate(
    x_0: Float[Tensor, "S V"], x_1: Float[Tensor, "S V"], t: Float[Tensor, "S 1"]
) -> Float[Tensor, "S V"]:
    """Return the point x_t on the straight line from noise to data."""
    return torch.lerp(x_0, x_1, t)


def training_times(
    normal: Float[Tensor, " M"],
    tokens: Float[Tensor, " M"],
    shift_tokens: float,
    density: Density = PLAIN,
    most_shift: float = 0.0,
) -> Float[Tensor, " M"]:
    """Turn standard normals into training times of a density, noisier for longer clips.

    A logit-normal's t = sigmoid(mean + width n); of any density the share Phi(n) lies below t.
    """
    if (of := density.normal) is not None:
        t = (of.mean + of.width * normal).sigmoid()
    else:
        t = torch.tensor([density.quantile(STANDARD.cdf(n)) for n in normal.tolist()])
    return shifted(t, clip_shift(tokens, shift_tokens, most_shift))


def windowed_normals(
    normal: Float[Tensor, " M"],
    tokens: Float[Tensor, " M"],
    shift_tokens: float,
    window: tuple[float, float],
    density: Density = PLAIN,
    most_shift: float = 0.0,
) -> Float[Tensor, " M"]:
    """Move standard normals so that their training times lie in a window, in the same proportions.

    The times' own distribution, given that they lie there: with P the share of times below one,
    n' = Phi^-1(P(low) + Phi(n) (P(high) - P(low))). One draw a time, none is rejected.
    """
    shift = clip_shift(tokens.double(), shift_tokens, most_shift)
    ends = [torch.full_like(shift, end) for end in window]
    # The inverse of the shift: t = s t' / (1 - t' + s t').
    low, high = (shift * t / (1 - t + shift * t) for t in ends)
    below, above = _share_below(low, density), _share_below(high, density)
    share = below + torch.special.ndtr(normal.double()) * (above - below)
    return torch.special.ndtri(share).float()


def _share_below(t: Float[Tensor, " M"], density: Density) -> Float[Tensor, " M"]:
    if (of := density.normal) is not None:
        return torch.special.ndtr((t.logit() - of.mean) / of.width)
    return torch.tensor([density.below(time) for time in t.tolist()], dtype=t.dtype)


def sampler_times(
    num_steps: int, shift: float, spacing: Spacing = Spacing.even, density: Density = PLAIN
) -> list[float]:
    """Return the times of a sampler's steps, from 0 to 1, finer near noise for a shift above 1.

    Even in t before the shift, or at even shares of the density that was trained.
    """
    grid = torch.linspace(0.0, 1.0, num_steps + 1)
    if spacing is Spacing.trained:
        grid = torch.tensor([density.quantile(share) for share in grid.tolist()])
    return shifted(grid, shift).tolist()


def time_weight(weighting: Weighting, t: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
    """Return what a squared velocity error weighs at a time.

    data: (1 - t)^2, the squared error of x_1. min_snr: min(SNR, 5) of that (Hang et al. 2023), with
    SNR = t^2 / (1 - t)^2. sigmoid: of the log-SNR (Kingma and Gao 2023), as it is for times drawn
    evenly: sigmoid(2 - log SNR) on the squared error of x_0 and d log SNR / dt = 2 / (t (1 - t)).
    """
    noise, data = (1 - t).square(), t.square()
    if weighting is Weighting.data:
        return noise
    if weighting is Weighting.min_snr:
        return torch.minimum(data, MOST_SNR * noise)
    if weighting is Weighting.sigmoid:
        return 2 * t * (1 - t) / (noise + exp(-SIGMOID_BIAS) * data)
    return torch.ones_like(t)


def squared_errors(
    velocity: Float[Tensor, "S V"],
    x_0: Float[Tensor, "S V"],
    x_1: Float[Tensor, "S V"],
    valid: Bool[Tensor, "S V"],
) -> Float[Tensor, " S"]:
    """Return each token's summed squared velocity error over its valid values."""
    error = (velocity - (x_1 - x_0)) * valid
    return error.square().sum(dim=-1)


def flow_errors(
    model: Callable[[TokenPack, Tensor, Tensor], Tensor],
    pack: TokenPack,
    x_0: Float[Tensor, "S V"],
    t: Float[Tensor, " T"],
) -> Float[Tensor, " S"]:
    """Run the model at (x_0, t) and return each token's summed squared error."""
    per_token = t.index_select(0, pack.span).unsqueeze(-1)  # (S, 1)
    velocity = model(pack, interpolate(x_0, pack.latent, per_token), t)
    return squared_errors(velocity, x_0, pack.latent, pack.valid)


@dataclass(frozen=True)
class Flow:
    """Rectified flow with its settings, an objective (models/objective.py).

    window: training draws times inside of it and validation looks there; see ``t_range``.
    density: of training times, before the shift of longer clips.
    most_shift: of any clip; 0 leaves it open.
    """

    shift_tokens: float = 512.0
    prediction: Prediction = Prediction.velocity
    weight: Weighting = Weighting.uniform
    window: tuple[float, float] = WHOLE
    density: Density = PLAIN
    most_shift: float = 0.0

    @classmethod
    def build(cls, settings: Settings) -> "Flow":
        """Build it from a run's settings."""
        low, high = settings.t_range
        density = density_of(settings.density, settings.spread)
        return cls(
            settings.shift_tokens, settings.prediction, settings.weight, (low, high), density,
            settings.most_shift,
        )  # fmt: skip

    @property
    def coefficients(self) -> Coefficients:
        """How the network is preconditioned for what it predicts."""
        return {
            Prediction.velocity: velocity_coefficients,
            Prediction.data: data_coefficients,
            Prediction.noise: noise_coefficients,
        }[self.prediction]

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        """Return a sample's noise x_0."""
        return draw("noise", shape)

    def times(self, draws: Sequence[Draw], tokens: Float[Tensor, " M"]) -> Float[Tensor, " M"]:
        """Return times of the density, shifted by the clips' tokens, inside the window."""
        normal = torch.cat([draw("time", (1,)) for draw in draws])
        shift = (tokens, self.shift_tokens)
        if self.window != WHOLE:
            normal = windowed_normals(normal, *shift, self.window, self.density, self.most_shift)
        t = training_times(normal, *shift, self.density, self.most_shift)
        return t if self.window == WHOLE else t.clamp(*self.window)

    def inputs(
        self, pack: TokenPack, x_0: Float[Tensor, "S V"], t: Float[Tensor, " T"]
    ) -> Float[Tensor, "S V"]:
        """Return x_t."""
        return interpolate(x_0, pack.latent, t.index_select(0, pack.span).unsqueeze(-1))

    def errors(
        self,
        network: Callable[[TokenPack, Tensor, Tensor], Tensor],
        pack: TokenPack,
        x_0: Float[Tensor, "S V"],
        t: Float[Tensor, " T"],
    ) -> Float[Tensor, " S"]:
        """Return each token's summed squared velocity error, weighed by its time."""
        errors = flow_errors(network, pack, x_0, t)
        if self.weight is Weighting.uniform:
            return errors
        return errors * time_weight(self.weight, t).index_select(0, pack.span)

    def measured(
        self,
        network: Callable[[TokenPack, Tensor, Tensor], Tensor],
        pack: TokenPack,
        x_0: Float[Tensor, "S V"],
        t: Float[Tensor, " T"],
    ) -> Float[Tensor, " S"]:
        """Return each token's summed squared velocity error."""
        return flow_errors(network, pack, x_0, t)

    def strata(self, count: int, offset: float) -> Float[Tensor, " M"]:
        """Return one time in each of ``count`` equal parts of the window."""
        t = (torch.arange(count) + offset) / count
        if self.window == WHOLE:
            return t
        low, high = self.window
        return low + (high - low) * t

    def walk(
        self,
        x: Float[Tensor, "S V"],
        tokens: int,
        route: Route,
        source: Float[Tensor, "S V"] | None = None,
    ) -> Walk:
        """Return the way of a clip through the flow; refuse where a window is all that was trained.

        The shift, where the route names none, is that of the clip's tokens in training.
        """
        if self.window != WHOLE:
            raise ValueError(
                f"objective.t_range={list(self.window)}: the run learned these times alone, and "
                "sampling needs all of [0, 1]. Sample from a run of the whole range."
            )
        shift = route.shift
        if shift is None:
            shift = clip_shift(float(tokens), self.shift_tokens, self.most_shift)
        times = sampler_times(route.num_steps, shift, route.spacing, self.density)[route.still :]
        if route.start:
            times = [route.start, *(t for t in times if t > route.start)]
        return METHODS[route.method](x, times) if source is None else flow_edit(x, source, times)


OBJECTIVE = ObjectiveKind(Flow.build, options={})
