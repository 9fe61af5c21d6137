"""What language models answer, cleaned."""

import unicodedata
from typing import Any

ANSWER_CHARACTERS = 8000


def clean_text(value: Any, name: str, least: int, most: int) -> str:
    """Return a text with single spaces. Raises ValueError on control characters and odd lengths."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    text = " ".join(value.split())
    # Cc control, Cf invisible format and direction marks, Cs Co Cn: not for people to read.
    if any(unicodedata.category(letter).startswith("C") for letter in text):
        raise ValueError(f"{name} holds control characters")
    if not least <= len(text) <= most:
        raise ValueError(f"{name} has {len(text)} characters, not {least} to {most}")
    return text
