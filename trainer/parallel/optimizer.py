"""AdamW that can leave a step out, with all its state untouched."""

from collections.abc import Callable
from typing import Any

import torch


class HeldAdamW(torch.optim.AdamW):
    """torch's AdamW behind a gate: ``allow`` is asked before every update.

    DeepSpeed knows the global gradient norm only inside its own step, so the decision to skip an
    update must be taken there.
    """

    allow: Callable[[], bool] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update if allowed."""
        if self.allow is None or self.allow():
            super().step(closure)
