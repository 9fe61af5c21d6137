"""From parameters and tokens to learning rate and batch: one stated rule for every run.

Without a tuned recipe there is no law: a wrong learning rate or batch moves the loss of tiny models
by as much as doubling the compute (docs/log.md). Under the muP roles of ``models/roles.py`` the
rate needs no width; what is left is its fall with the length of training, a power law as in Step
Law (Li et al. 2025) and in Yin et al. 2024 for video.
"""

from dataclasses import dataclass

from sweeps.config import RecipeConfig


@dataclass(frozen=True)
class Recipe:
    """Settings of one run."""

    lr: float
    pack_tokens: int
    packs_per_step: int

    def overrides(self) -> list[str]:
        """Return them as Hydra overrides of a run."""
        return [
            f"optim.lr={self.lr:.4g}",
            f"data.pack_tokens={self.pack_tokens}",
            f"data.packs_per_step={self.packs_per_step}",
        ]


def recipe_for(config: RecipeConfig, tokens: float) -> Recipe:
    """Return the settings for a run of ``tokens`` training tokens."""
    lr = config.lr * (tokens / config.lr_tokens) ** -config.lr_power
    lr = min(max(lr, config.lr_min), config.lr_max)
    batch = config.batch_tokens * (tokens / config.batch_at_tokens) ** config.batch_power
    packs = max(1, round(batch / config.pack_tokens))
    return Recipe(lr, config.pack_tokens, packs)


def describe(config: RecipeConfig) -> str:
    """Say the recipe in one sentence."""
    return (
        f"Peak learning rate {config.lr:g} * (D / {config.lr_tokens:g})^-{config.lr_power:g} at "
        f"base width (muP roles carry it to other widths), within {config.lr_min:g} to "
        f"{config.lr_max:g}; batch {config.batch_tokens} tokens * "
        f"(D / {config.batch_at_tokens:g})^{config.batch_power:g} in whole packs of "
        f"{config.pack_tokens}; warm-up, constant and linear decay to zero as in the base run."
    )
