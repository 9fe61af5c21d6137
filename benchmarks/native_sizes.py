"""Sizes of clips as a web-scale set has them: native resolutions, shapes and lengths, simulated."""

from dataclasses import dataclass

import numpy as np

from data.dataset.sample import SampleInfo
from data.dataset.tokens import tokens

CELL = (4, 16, 16)
FPS = 24
MAX_SECONDS = 20.0
VIDEO_SHARE = 0.6
SHORT_SIDES = {144: 0.1, 240: 0.2, 360: 0.25, 480: 0.2, 720: 0.15, 1080: 0.1}
ASPECTS = {16 / 9: 0.5, 9 / 16: 0.2, 4 / 3: 0.12, 1.0: 0.08, 3 / 4: 0.05, 3 / 2: 0.05}
# Lengths lean to the short end; this power brings the median to 11.3k tokens (aimed at: 11.5k).
LENGTH_POWER = 1.25


@dataclass(frozen=True)
class Clip:
    """Source frames and pixels of a clip; an image has one frame."""

    num_frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """Video tokens at 4x16x16 source pixels each."""
        return tokens(self.num_frames, self.height, self.width, CELL)


def draw_clips(count: int, seed: int = 0) -> list[Clip]:
    """Draw clips: 60 % videos of 1 to 20 s, 144p to 1080p, the usual aspect ratios."""
    rng = np.random.default_rng(seed)
    shorts = rng.choice(list(SHORT_SIDES), count, p=list(SHORT_SIDES.values()))
    aspects = rng.choice(list(ASPECTS), count, p=list(ASPECTS.values()))
    seconds = 1 + (MAX_SECONDS - 1) * rng.random(count) ** LENGTH_POWER
    moving = rng.random(count) < VIDEO_SHARE
    clips = []
    for short, aspect, length, video in zip(shorts, aspects, seconds, moving, strict=True):
        long = 2 * round(short * max(aspect, 1 / aspect) / 2)
        height, width = (short, long) if aspect >= 1 else (long, short)
        frames = 1 + 4 * int((FPS * length - 1) // 4) if video else 1
        clips.append(Clip(frames, int(height), int(width)))
    return clips


def as_infos(clips: list[Clip], clips_per_shard: int = 100) -> list[SampleInfo]:
    """Return index entries of clips without bytes behind them, for planning."""
    return [
        SampleInfo(
            key=f"clip-{number}",
            media="video" if clip.num_frames > 1 else "image",
            num_frames=clip.num_frames,
            height=clip.height,
            width=clip.width,
            fps=float(FPS),
            duration_seconds=clip.num_frames / FPS,
            caption="",
            source="simulated",
            licence="none",
            rendered=True,
            sha256="0" * 64,
            original={},
            shard=f"shard-{number // clips_per_shard:06d}.tar",
            offset=0,
            nbytes=1,
        )
        for number, clip in enumerate(clips)
    ]
