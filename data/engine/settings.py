"""What settings of an ingest must agree on, and which of them change nothing that is built."""

from typing import Any

from data.config import Engine, IngestConfig

# Who builds, and how much of it at once, changes nothing that is built.
BUILDERS = ("num_workers", "overwrite", "engine", "address", "share")
# What says which sources there are, and which of their samples stay, changes no sample.
STAYING = ("duplicate_bits", "repeat_bits")
FINDERS = (
    *BUILDERS, *STAYING, "input", "output", "split", "val_fraction", "licence", "captions",
    "caption_column", "path_column", "where", "shard_bytes",
)  # fmt: skip


def check(config: IngestConfig) -> None:
    """Raise ValueError where values of an ingest config contradict each other."""
    step, bound = config.cell[0], config.max_frames
    longest = [n for n in (bound, *config.clip_frames) if n]
    rules: list[tuple[str, bool, str]] = [
        (
            "max_frames",
            all(n >= 1 + step and n % step == 1 % step for n in longest),
            f"clip lengths must be 1 + k * {step}. Use 17",
        ),
        (
            "clip_frames",
            all(n <= bound or not bound for n in config.clip_frames),
            f"must not exceed max_frames={config.max_frames}. Raise max_frames",
        ),
        (
            "split",
            config.split.replace("_", "").isalnum(),
            "must be a name. Use train or by_source",
        ),
        (
            "captions",
            not (config.captions == "none" and (config.caption_column or config.path_column)),
            "reads no table, so that caption_column and path_column name nothing. Leave them out",
        ),
    ]
    check_rules(config, rules)
    check_builders(config)


def check_builders(settings: Any) -> None:
    """Raise ValueError where ``engine``, ``address`` and ``share`` of settings mean nothing."""
    rules: list[tuple[str, bool, str]] = [
        (
            "share",
            not settings.share or share_of(settings.share) is not None,
            "must be I/N with I from 0 to N - 1. Use for example 0/8",
        ),
        (
            "address",
            not settings.address or settings.engine is Engine.ray,
            "is the cluster of engine=ray. Say engine=ray, too, or leave it out",
        ),
        (
            "engine",
            settings.engine is not Engine.slurm,
            "is a queue, which is told of jobs. Use kinescale COMMAND, or kinescale array COMMAND",
        ),
    ]
    check_rules(settings, rules)


def check_rules(settings: Any, rules: list[tuple[str, bool, str]]) -> None:
    """Raise ValueError at the first rule (key, whether it holds, what it wants) that is broken."""
    for name, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name}={getattr(settings, name)}: {rule}.")


def share_of(text: str) -> tuple[int, int] | None:
    """Return (i, n) of the share I/N; None where it is none."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        return None
    return int(first), int(count)
