"""How many optimizer steps a horizon is, from the index of the data set alone; no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeVar

from data.dataset.sample import SampleInfo
from data.dataset.table import Table
from data.dataset.tokens import tokens
from data.loading.mixture import planner_of
from data.loading.stream import Span
from models.count import count_flops
from models.tasks import expected_spans
from trainer.config import RunConfig

_LOOK_AHEAD_STEPS = 64  # steps planned to learn how full packs get
MANY_CLIPS, CLIP_STEP = 400, 4  # of more clips than these every fourth is looked at


class Clip(Protocol):
    """What the FLOPs of a clip depend on: source frames, pixels, and the tokens of its captions."""

    @property
    def num_frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def caption_tokens(self) -> int: ...
    @property
    def short_caption(self) -> str: ...
    @property
    def short_caption_tokens(self) -> int: ...


ClipT = TypeVar("ClipT", bound=Clip)


@dataclass(frozen=True)
class Horizon:
    """A run's length: optimizer steps, expected tokens and FLOPs of one step."""

    steps: int
    step_tokens: float
    step_flops: float


def plan_horizon(
    run: RunConfig, infos: Sequence[SampleInfo], spans: Sequence[Span] = ()
) -> Horizon:
    """Turn FLOPs, tokens or steps into steps.

    An epoch holds each sample once, so mean FLOPs a token are exact over epochs, of a mixture over
    passes of its members, whose ``spans`` have their weights' shares of the tokens; how full packs
    get is learned by planning some steps ahead. The run counts what it really did.
    """
    planner = planner_of(run.data, infos, spans, run.cell, run.seed)
    planned = sum(
        planner.lengths[item.index]
        for _ in range(_LOOK_AHEAD_STEPS)
        for pack in planner.next_step()
        for item in pack
    )
    step_tokens = planned / _LOOK_AHEAD_STEPS
    total = sum(span.weight for span in planner.spans)
    step_flops = step_tokens * sum(
        span.weight / total * flops_per_token(run, infos[span.start : span.stop])
        for span in planner.spans
    )
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


def some_of(clips: Sequence[ClipT]) -> Sequence[ClipT]:
    """Return every fourth of many clips: enough to know FLOPs a token to a per cent."""
    return clips[::CLIP_STEP] if len(clips) > MANY_CLIPS else clips


def kinds_of(infos: Sequence[Clip]) -> Iterable[tuple[Clip, int]]:
    """Return clips with how many there are of each; of columns by what their FLOPs depend on."""
    if isinstance(infos, Table):
        return infos.kinds()
    return ((info, 1) for info in infos)


def flops_per_token(run: RunConfig, infos: Sequence[Clip]) -> float:
    """Return mean training FLOPs a video token over one epoch, by the shares of captions seen."""
    objective = run.objective
    kept = 1 - objective.caption_dropout
    shares = (
        kept * objective.dense_captions,
        kept * (1 - objective.dense_captions),
        objective.caption_dropout,
    )
    flops, total = 0.0, 0
    condition = count_flops(run.model, [], [], spans=1).total
    one = cache(lambda length, caption: count_flops(run.model, [length], [caption]).total)
    for info, count in kinds_of(infos):
        length = tokens(info.num_frames, info.height, info.width, run.cell)
        dense = max(1, info.caption_tokens)
        short = max(1, info.short_caption_tokens) if info.short_caption else dense
        for share, caption in zip(shares, (dense, short, 1), strict=True):
            if share:
                flops += count * share * one(length, caption)
        if objective.tasks:
            size = run.codec.latent_shape(info.num_frames, info.height, info.width)
            flops += count * (expected_spans(objective.tasks, size) - 1) * condition
        total += count * length
    return flops / total
