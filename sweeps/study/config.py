"""Schema of what all studies share."""

from dataclasses import dataclass
from enum import StrEnum


class RecipePreset(StrEnum):
    """Whose law gives learning rate and batch; sources and coefficients in recipe.py."""

    own = "own"
    step_law = "step_law"
    video = "video"


@dataclass
class RecipeConfig:
    """How batch, rate, warm-up and decay follow from a run's N parameters and D tokens; recipe.py.

    preset: a published law replaces the coefficients and bounds below, ``own`` uses them.
    lr: peak rate at ``lr_tokens`` training tokens and the model's ``base_width``.
    lr_tokens, lr_power: lr(N, D) = lr * (D / lr_tokens) ** -lr_power
        * (N / lr_params) ** -lr_params_power; muP roles need no N.
    batch_tokens: batch at ``batch_at_tokens`` training tokens; grows as a power of them.
    batch_power, pack_tokens: exponent of the batch; a batch is whole packs of ``pack_tokens``.
    batch_at_params, batch_params_power: the same for parameters.
    lr_min, lr_max: bounds of the rate.
    warmup_per_param: tokens of warm-up for each parameter, at most ``warmup_max`` of the run; 0
        leaves warm-up to the base run.
    weight_timescale: weight decay is set so that the weights average over this share of the run; 0
        leaves weight decay to the base run.
    """

    lr: float = 5e-3
    lr_tokens: float = 1e6
    lr_power: float = 0.0
    lr_min: float = 5e-4
    lr_max: float = 2e-2
    batch_tokens: int = 1024
    batch_at_tokens: float = 1e6
    batch_power: float = 0.0
    pack_tokens: int = 1024
    preset: RecipePreset = RecipePreset.own
    lr_params: float = 1e5
    lr_params_power: float = 0.0
    batch_at_params: float = 1e5
    batch_params_power: float = 0.0
    warmup_per_param: float = 0.0
    warmup_max: float = 0.2
    weight_timescale: float = 0.0

    def check(self) -> None:
        """Raise ValueError on values that give no recipe."""
        positive = ("lr", "lr_tokens", "lr_min", "batch_tokens", "batch_at_tokens", "pack_tokens")
        for key in (*positive, "lr_params", "batch_at_params"):
            if not getattr(self, key) > 0:
                raise ValueError(
                    f"recipe.{key}={getattr(self, key)}: must be positive. "
                    f"Use {getattr(RecipeConfig(), key):g}."
                )
        if self.lr_max < self.lr_min:
            raise ValueError(
                f"recipe.lr_max={self.lr_max:g}: must be at least recipe.lr_min={self.lr_min:g}. "
                f"Use {10 * self.lr_min:g}."
            )
        for key in ("warmup_per_param", "weight_timescale"):
            if not getattr(self, key) >= 0:
                raise ValueError(
                    f"recipe.{key}={getattr(self, key)}: must be 0 or more. "
                    "0 leaves it to the base run."
                )
        if not 0 < self.warmup_max <= 1:
            raise ValueError(
                f"recipe.warmup_max={self.warmup_max}: must lie in (0, 1], a share of the run. "
                "Use 0.2."
            )


@dataclass
class SampleConfig:
    """The compute ladder: clips from the best model of each budget, same noise and prompts.

    prompts: how many held-out captions; guidance and steps of the sampler.
    """

    prompts: int = 4
    guidance: float = 2.0
    steps: int = 16
