"""A run's length: FLOPs, tokens or steps become steps, by the index of the data set alone."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data.dataset.shards import read_index
from data.dataset.tokens import tokens
from data.loading.planner import PackPlanner
from data.loading.stream import Span
from tests.data.conftest import info_of
from trainer.config import RunConfig, compose_run
from trainer.diffusion.horizon import MANY_CLIPS, flops_per_token, plan_horizon, some_of

from ..conftest import compose_smoke

# Clips: (tokens, words of the dense caption, words of the short one; 0: it has none).
CLIPS = [(4, 6, 2), (6, 0, 0), (10, 8, 0), (5, 3, 1)]


def infos():
    """Return one-frame strips of those tokens with captions of those words."""
    return [
        info_of(
            f"s{i}", "latent", (1, 16, 16 * count),
            caption_tokens=dense, short_caption_tokens=short, short_caption="x" if short else "",
        )
        for i, (count, dense, short) in enumerate(CLIPS)
    ]  # fmt: skip


def by_hand(run: RunConfig, count: int, words: int) -> int:
    """Return the training FLOPs of one clip: 2 a product, three passes; 32 wide, 2 blocks."""
    D, V, T = 32, 24, run.model.time_features
    rows = (V + 18) * D + 2 * (4 + 2 + 8) * D * D + D * V
    segment, word = 2 * T * D + 9 * D * D, 32 * D + 2 * 2 * D * D
    return 6 * (count * rows + segment + words * word) + 12 * 2 * D * (count**2 + count * words)


def test_flops_a_token_are_the_mean_over_an_epoch_and_over_the_captions_drawn(
    latents: Path,
) -> None:
    run = compose_smoke(latents, "objective.caption_dropout=0.2")
    run.objective.dense_captions = 0.75
    expected = 0.0
    # Dense 0.6, short 0.2 (the dense one where there is none), dropped 0.2 (the null caption).
    for count, dense, short in ((4, 6, 2), (6, 1, 1), (10, 8, 8), (5, 3, 1)):
        for share, words in ((0.6, dense), (0.2, short), (0.2, 1)):
            expected += share * by_hand(run, count, words)
    assert flops_per_token(run, infos()) == pytest.approx(expected / 25, rel=1e-12)
    run.objective.caption_dropout = 1.0
    dropped = sum(by_hand(run, count, 1) for count, _, _ in CLIPS)
    assert flops_per_token(run, infos()) == pytest.approx(dropped / 25, rel=1e-12)


def test_steps_are_given_or_follow_from_tokens_or_flops(latents: Path) -> None:
    run, index = compose_smoke(latents), read_index(latents, "train")
    data = run.data
    planner = PackPlanner(
        index, run.cell, data.pack_tokens, data.packs_per_step, data.max_segments, data.pool,
        run.seed, shuffle_shards=data.shuffle_shards, in_order=data.in_order,
    )  # fmt: skip
    steps = [planner.next_step() for _ in range(64)]
    counts = [tokens(i.num_frames, i.height, i.width, run.cell) for i in index]
    mean = sum(counts[p.index] for step in steps for pack in step for p in pack) / 64
    given = plan_horizon(compose_smoke(latents, "horizon.steps=7"), index)
    assert given.steps == 7
    assert given.step_tokens == pytest.approx(mean, rel=1e-12)
    assert given.step_flops == pytest.approx(mean * flops_per_token(run, index), rel=1e-12)
    by_tokens = compose_smoke(latents, "horizon.steps=0", f"horizon.tokens={round(9.7 * mean)}")
    assert plan_horizon(by_tokens, index).steps == 10
    by_flops = compose_smoke(latents, "horizon.steps=0", f"horizon.flops={5.3 * given.step_flops}")
    assert plan_horizon(by_flops, index).steps == 5


def test_a_horizon_of_one_step_is_taken_and_less_is_refused(latents: Path) -> None:
    index = read_index(latents, "train")
    step = plan_horizon(compose_smoke(latents), index).step_tokens
    one = compose_smoke(latents, "horizon.steps=0", f"horizon.tokens={round(step)}")
    assert plan_horizon(one, index).steps == 1
    less = compose_smoke(latents, "horizon.steps=0", f"horizon.tokens={round(0.4 * step)}")
    with pytest.raises(ValueError, match=r"horizon=.*less than one optimizer step.*Raise"):
        plan_horizon(less, index)


def test_members_of_a_mixture_count_by_their_weight_and_not_by_their_size(latents: Path) -> None:
    run, clips = compose_smoke(latents), infos()
    spans = [Span(0, 1, 3.0), Span(1, 4, 1.0)]
    found = plan_horizon(run, clips, spans)
    each = 0.75 * flops_per_token(run, clips[:1]) + 0.25 * flops_per_token(run, clips[1:])
    assert found.step_flops == pytest.approx(found.step_tokens * each, rel=1e-12)


SIZES = [(17, 64, 112), (9, 120, 80), (5, 96, 96), (1, 128, 96), (13, 72, 112), (17, 112, 64)]


@dataclass(frozen=True)
class Size:
    num_frames: int
    height: int
    width: int
    caption_tokens: int
    short_caption: str = ""
    short_caption_tokens: int = 0


def test_a_part_of_many_clips_tells_the_flops_of_a_token_to_a_per_cent() -> None:
    clips = [Size(*SIZES[i % len(SIZES)], 5 + i % 7) for i in range(MANY_CLIPS + 1)]
    part = some_of(clips)
    assert len(part) == 101
    assert some_of(clips[:MANY_CLIPS]) == clips[:MANY_CLIPS]
    run = compose_run(["experiment=cpu_demo", "horizon.steps=1"])
    assert flops_per_token(run, part) == pytest.approx(flops_per_token(run, clips), rel=0.01)
