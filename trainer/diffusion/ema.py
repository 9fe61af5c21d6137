"""Power-function moving average of the weights (Karras et al. 2024, EDM2, section 3.1).

Its profile scales with the run, so runs of any length are averaged alike:
decay(n) = (1 - 1 / n)^(gamma + 1), with gamma set by the relative width sigma.
"""

from typing import TYPE_CHECKING

import torch

from trainer.optim import gamma_of

if TYPE_CHECKING:  # the engine imports DeepSpeed, which small networks do not need
    from trainer.parallel.engine import Engine


class PowerEma:
    """The average over this rank's fragments of the master weights."""

    def __init__(self, engine: "Engine", sigma: float) -> None:
        self._gamma = gamma_of(sigma)
        self._masters = {f.name: f.tensors["param"] for f in engine.fragments()}
        self.average = {name: master.clone() for name, master in self._masters.items()}

    def update(self, step: int) -> None:
        """Move toward the weights after optimizer step ``step`` (the first is 1)."""
        decay = (1.0 - 1.0 / step) ** (self._gamma + 1.0)
        torch._foreach_lerp_(list(self.average.values()), list(self._masters.values()), 1.0 - decay)
