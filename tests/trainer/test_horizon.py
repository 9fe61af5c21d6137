"""What a run costs is known from sizes and captions alone, and from a part of many clips."""

from dataclasses import dataclass

import pytest

from trainer.config import compose_run
from trainer.diffusion.horizon import MANY_CLIPS, flops_per_token, some_of

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
