"""What settings of an ingest must agree on, and which of them change nothing that is built."""

from data.config import Engine, IngestConfig

# Who builds, and how much of it at once, changes nothing that is built.
BUILDERS = ("num_workers", "overwrite", "engine", "address", "share")


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
            "share",
            not config.share or share_of(config.share) is not None,
            "must be I/N with I from 0 to N - 1. Use for example 0/8",
        ),
        (
            "address",
            not config.address or config.engine is Engine.ray,
            "is the cluster of engine=ray. Say engine=ray, too, or leave it out",
        ),
        (
            "captions",
            not (config.captions == "none" and (config.caption_column or config.path_column)),
            "reads no table, so that caption_column and path_column name nothing. Leave them out",
        ),
    ]
    for name, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name}={getattr(config, name)}: {rule}.")


def share_of(text: str) -> tuple[int, int] | None:
    """Return (i, n) of the share I/N; None where it is none."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        return None
    return int(first), int(count)
