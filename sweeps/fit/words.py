"""Counts in the words of messages: as ``data.words``, which a fit that stands alone lacks."""


def counted(count: int, noun: str) -> str:
    """Return ``1 run`` or ``1,200 runs``."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"
