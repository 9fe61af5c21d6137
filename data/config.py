"""Schema of the data room; torch-free so that planners can import it quickly."""

from dataclasses import dataclass, field
from enum import StrEnum


class BadSamplePolicy(StrEnum):
    """What the loader does with a planned sample that no decoder can read."""

    error = "error"
    drop = "drop"


@dataclass
class DataConfig:
    """How clips become packs.

    root: dataset folder (holds ``manifest.json`` and one folder per split).
    train_split: name of the split to train on.
    pack_tokens: video-token budget of one pack (one micro-batch on one rank).
    packs_per_step: packs in one optimizer step over all ranks; ``pack_tokens * packs_per_step``
        is the global batch in tokens.
    max_segments: most clips and images one pack may hold.
    pool: look-ahead of the refill-pool packer, in samples.
    decode_workers: decoder child processes per rank; used only where a split holds video.
    decode_timeout_seconds: time one clip may take before its decoder is killed.
    on_bad_sample: see :class:`BadSamplePolicy`.
    """

    root: str = "datasets/demo/latents"
    train_split: str = "train"
    pack_tokens: int = 1024
    packs_per_step: int = 1
    max_segments: int = 64
    pool: int = 256
    decode_workers: int = 1
    decode_timeout_seconds: float = 20.0
    on_bad_sample: BadSamplePolicy = BadSamplePolicy.error


@dataclass
class IngestConfig:
    """How foreign files become shards.

    cell: source pixels of one video token as (frames, height, width).
    token_cap: a clip over this many tokens is scaled down, keeping its aspect ratio.
    max_frames: longest clip, must be 1 + k * cell[0].
    max_clips_per_source: long videos are sampled evenly beyond this.
    shard_bytes: a shard is closed once it is larger.
    caption_bytes: captions over this are rejected.
    max_file_bytes: input files over this are rejected.
    timeout_seconds: time one input file may take.
    """

    cell: list[int] = field(default_factory=lambda: [4, 16, 16])
    token_cap: int = 512
    max_frames: int = 17
    max_clips_per_source: int = 64
    shard_bytes: int = 32_000_000
    caption_bytes: int = 4096
    max_file_bytes: int = 2_000_000_000
    timeout_seconds: float = 120.0
