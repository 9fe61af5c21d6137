"""Numbers in the words of messages. Standard library alone."""

from collections.abc import Iterable


def counted(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 run`` or ``1,200 runs``. nouns: the plural, where it is not noun + s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def shown(values: Iterable[float]) -> str:
    """Return numbers as a person writes them in a list: ``[2.4e+11,5]``, not 240000000000.0."""
    return f"[{','.join(f'{value:g}' for value in values)}]"


def shown_times(value: float) -> str:
    """Return how often in two digits: ``0.12``, ``3.4``, ``230``, never ``2.3e+02``."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
