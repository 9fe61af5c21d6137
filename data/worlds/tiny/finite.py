"""What is known from outside of a world with few clips: its entropy, and the least possible loss.

With x_t = (1 - t) x_0 + t x_1 (x_0 noise, x_1 a clip in [-1, 1]) the best prediction of the
velocity x_1 - x_0 is (E[x_1 | x_t] - x_t) / (1 - t), and its error that of x_1 over (1 - t)^2. With
clips x_j of probability p_j the posterior is

    w_j ~ p_j exp((t x_t . x_j - t^2 |x_j|^2 / 2) / (1 - t)^2)

so that E |x_1 - E[x_1 | x_t]|^2 = E [sum_j w_j |x_j|^2 - |sum_j w_j x_j|^2]: only the mean over
noise, time and clip is estimated. The loss also gives the entropy back (Guo, Shamai and Verdu 2005;
the signal-to-noise ratio is t^2 / (1 - t)^2):

    H = 1/2 integral mmse d snr = integral over t of (summed velocity loss) t / (1 - t) dt  [nats]
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.state import Array
from data.worlds.tiny.world import World

BLOCK = 64  # draws of noise at a time


@dataclass(frozen=True)
class Finite:
    """All clips of a world: ``shares`` (N,), and of each the values that vary, centred, (N, D).

    num_values: of a whole clip, also those that never vary, whose velocity is known exactly.
    """

    values: NDArray[np.float32]
    shares: Array
    num_values: int

    @property
    def entropy_bits(self) -> float:
        """Entropy of a clip."""
        return float(-(self.shares * np.log2(self.shares)).sum())


@dataclass(frozen=True)
class LeastLoss:
    """The exact denoiser's mean squared velocity error a value, with its standard error.

    by_time: in equal parts of t. bits: the entropy that the loss implies, with its standard error.
    """

    loss: float
    loss_error: float
    bits: float
    bits_error: float
    by_time: list[float]


def all_clips(world: World[Any]) -> Finite:
    """Draw every clip of a finite world once; scenes that look alike are one clip.

    Raises ValueError where a world has no list of its clips.
    """
    if not world.finite:
        raise ValueError(
            f"world={world.name}: has no list of its clips. Use strip_finite or rotor."
        )
    shares: dict[bytes, float] = {}
    for scene, share in world.scenes():
        key = world.render(world.unroll(scene)).tobytes()
        shares[key] = shares.get(key, 0.0) + share
    pixels = np.stack([np.frombuffer(key, np.uint8) for key in shares])
    varying = pixels[:, (pixels != pixels[0]).any(0)]
    values = varying.astype(np.float32) / 127.5 - 1
    total = np.array(list(shares.values()))
    mean = (total @ values).astype(np.float32)
    return Finite(values - mean, total, pixels.shape[1])


def least_loss(finite: Finite, seed: int, draws: int = 256, strata: int = 16) -> LeastLoss:
    """Estimate the exact denoiser's loss at times spread evenly over [0, 1].

    Each draw is a clip and a noise, met at one time in each of ``strata`` equal parts, so that
    draws are independent and their spread is the standard error.
    """
    rng = np.random.default_rng([0xF171, seed])
    gram = finite.values.astype(np.float64) @ finite.values.T  # (N, N)
    rows, bits_of = [], []
    for start in range(0, draws, BLOCK):
        count = min(BLOCK, draws - start)
        clip = rng.choice(len(gram), size=count, p=finite.shares)
        noise = rng.standard_normal((count, finite.values.shape[1]), np.float32)
        along = (noise @ finite.values.T).astype(np.float64)  # (B, N)
        times = (np.arange(strata) + rng.random((count, strata))) / strata
        losses = np.stack([errors(finite, gram, along, clip, t) for t in times.T], 1)  # (B, strata)
        rows.append(losses)
        bits_of.append((losses * times / (1 - times)).mean(1) / np.log(2))
    losses, bits = np.concatenate(rows) / finite.num_values, np.concatenate(bits_of)
    each, scale = losses.mean(1), np.sqrt(draws)
    return LeastLoss(
        float(each.mean()),
        float(each.std(ddof=1) / scale),
        float(bits.mean()),
        float(bits.std(ddof=1) / scale),
        losses.mean(0).tolist(),
    )


def errors(
    finite: Finite, gram: Array, along: Array, clip: NDArray[np.int64], t: Array
) -> Array:  # (B,)
    """Return the expected squared velocity error, summed over values, given each x_t.

    along: (B, N) products of noise and clips. clip: (B,) the true ones. t: (B,).
    """
    time = t[:, None]
    norms = gram.diagonal()
    products = (1 - time) * along + time * gram[clip]  # x_t . x_j
    logits = (time * products - time**2 * norms / 2) / (1 - time) ** 2 + np.log(finite.shares)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    spread = weights @ norms - ((weights @ gram) * weights).sum(1)
    found: Array = np.maximum(spread, 0) / (1 - t) ** 2
    return found
