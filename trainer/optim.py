"""The learning-rate schedule: linear warm-up, constant, linear decay to zero.

Warm-up-stable-decay (Hu et al. 2024): the constant phase can be extended, and the decay is short.
"""

import numpy as np

from trainer.optim_config import AdamConfig


def learning_rate(optim: AdamConfig, step: int, total_steps: int) -> float:
    """Return the rate of optimizer step ``step`` in 0 .. ``total_steps`` - 1."""
    position = step + 0.5
    warmup = max(optim.warmup * total_steps, 1e-9)
    decay = max(optim.decay * total_steps, 1e-9)
    rising = min(1.0, position / warmup)
    falling = min(1.0, (total_steps - position) / decay)
    return optim.lr * min(rising, falling)


def gamma_of(sigma: float) -> float:
    """Return the exponent whose profile has relative width ``sigma`` (EDM2, equation 126)."""
    inverse = sigma**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
