"""How many optimizer steps a horizon is, from the index of the data set alone; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.pack import PackPlanner, tokens
from data.sample import SampleInfo
from models.count import count_flops
from trainer.config import RunConfig

_LOOK_AHEAD_STEPS = 64  # steps planned to learn how full packs get


@dataclass(frozen=True)
class Horizon:
    """A run's length: optimizer steps, expected tokens and FLOPs of one step."""

    steps: int
    step_tokens: float
    step_flops: float


def plan_horizon(run: RunConfig, infos: Sequence[SampleInfo]) -> Horizon:
    """Turn FLOPs, tokens or steps into steps.

    An epoch holds each sample once, so mean FLOPs a token are exact over epochs; how full packs
    get is learned by planning some steps ahead. The run counts what it really did.
    """
    planner = PackPlanner(
        list(infos),
        run.cell,
        run.data.pack_tokens,
        run.data.packs_per_step,
        run.data.max_segments,
        run.data.pool,
        run.seed,
    )
    lengths = [tokens(i.num_frames, i.height, i.width, run.cell) for i in infos]
    planned = sum(
        lengths[item.index]
        for _ in range(_LOOK_AHEAD_STEPS)
        for pack in planner.next_step()
        for item in pack
    )
    step_tokens = planned / _LOOK_AHEAD_STEPS
    step_flops = step_tokens * flops_per_token(run, infos)
    horizon = run.horizon
    if horizon.steps:
        steps = horizon.steps
    elif horizon.tokens:
        steps = round(horizon.tokens / step_tokens)
    else:
        steps = round(horizon.flops / step_flops)
    if steps < 1:
        raise ValueError(
            f"horizon={horizon}: is less than one optimizer step of {step_flops:.3g} FLOPs. "
            "Raise the horizon or shrink the batch."
        )
    return Horizon(steps, step_tokens, step_flops)


def flops_per_token(run: RunConfig, infos: Sequence[SampleInfo]) -> float:
    """Return mean training FLOPs a video token over one epoch, caption dropout included."""
    drop = run.objective.caption_dropout
    flops, total = 0.0, 0
    for info in infos:
        length = tokens(info.num_frames, info.height, info.width, run.cell)
        caption = max(1, info.caption_tokens)
        kept = count_flops(run.model, [length], [caption]).total
        flops += (1 - drop) * kept + drop * count_flops(run.model, [length], [1]).total
        total += length
    return flops / total
