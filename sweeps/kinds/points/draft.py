"""What the length of a point makes of its run: by FLOPs and a recipe, or by steps alone.

A transformer's batch, rate and shape follow from its length and size (``study/recipe.py``, the
ladder). A kind of run whose FLOPs nobody counts takes all of them from its base, arms and axes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data.dataset.tokens import tokens
from models.count import count_params
from sweeps.ladder.shapes import Rung
from sweeps.study.config import RecipeConfig
from sweeps.study.recipe import recipe_for
from trainer.config import RunConfig
from trainer.diffusion.horizon import Clip, flops_per_token, some_of
from trainer.kinds import KINDS, AnyRun

ClipsOf = Callable[[RunConfig], Sequence[Clip]]


@dataclass(frozen=True)
class Length:
    """How long a point is asked to be, and in which unit."""

    unit: str
    value: float


@dataclass(frozen=True)
class Draft:
    """What a length adds to a composed run.

    budget: in the unit that its kind counts. overrides: of batch, rate and length.
    label: the length as a part of a run's name.
    params, tokens, unique_tokens: asked for, and those of its clips; 0 where its kind counts none.
    """

    budget: float
    overrides: list[str]
    label: str
    params: int = 0
    tokens: float = 0.0
    unique_tokens: int = 0


def by_flops(
    run: RunConfig, length: Length, recipe: RecipeConfig, own: Sequence[str], clips_of: ClipsOf
) -> Draft:
    """Return the draft of a transformer; what ``own`` sets is not the recipe's."""
    infos = clips_of(run)
    per_token = flops_per_token(run, some_of(infos))
    params = count_params(run.model).total
    wanted = {
        "flops": length.value / per_token,
        "tokens": length.value,
        "tokens_per_param": length.value * params,
        "steps": length.value * recipe.batch_tokens,
    }[length.unit]
    rung = Rung(run.model.width, run.model.depth, run.model.head_dim, params)
    chosen = recipe_for(recipe, wanted, rung, run.model.base_width).overrides()
    set_by = {override.partition("=")[0] for override in own}
    rates = [o for o in chosen if o.partition("=")[0] not in set_by]
    horizon = f"horizon.tokens={wanted:.6g}"
    if length.unit in ("flops", "steps"):
        horizon = f"horizon.{length.unit}={length.value:.6g}"
    return Draft(
        wanted * per_token,
        [*rates, horizon],
        f"{length.unit[0]}{length.value:.3g}",
        params,
        wanted,
        unique_tokens(infos, run),
    )


def by_steps(
    run: AnyRun, length: Length, recipe: RecipeConfig, own: Sequence[str], clips_of: ClipsOf
) -> Draft:
    """Return the draft of a run that counts its steps."""
    del recipe, own, clips_of
    steps = round(length.value)
    return Draft(steps, [f"{KINDS[run.kind].lengths[length.unit]}={steps}"], f"s{steps}")


DRAFTS: Mapping[str, Callable[..., Draft]] = {"flops": by_flops, "steps": by_steps}


def unique_tokens(infos: Sequence[Clip], run: RunConfig) -> int:
    """Return the video tokens of all clips."""
    return sum(tokens(i.num_frames, i.height, i.width, run.cell) for i in infos)
