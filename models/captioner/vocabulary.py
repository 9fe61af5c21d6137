"""Captions as numbers: whole words where training captions hold them, single characters elsewhere.

A piece carries the space before it (" red"), so that decoding is joining. Any text of known
characters comes back as it was, but for runs of white space, which become one space.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum


class Special(IntEnum):
    """Numbers that stand for no text; two starts ask for the two kinds of captions."""

    pad = 0
    dense = 1
    short = 2
    end = 3
    unknown = 4


# A word (hyphens and apostrophes inside), one digit, or one mark; each with a space before it.
_PIECE = re.compile(r" ?(?:[^\W\d_]+(?:[-'][^\W\d_]+)*|\d|[^\w\s]|_)")
_CHARACTERS = tuple(chr(code) for code in range(32, 127))


def most_pieces(words: int) -> int:
    """Return how many pieces a vocabulary of at most so many words has at most."""
    return len(Special) + len(_CHARACTERS) + words


class Vocabulary:
    """The pieces of a captioner, stored with its weights; their order is their number."""

    def __init__(self, pieces: Sequence[str]) -> None:
        """Take the pieces after the special ones. Raises ValueError on empty or repeated ones."""
        if not all(isinstance(piece, str) and piece for piece in pieces):
            raise ValueError("pieces: must be texts that are not empty. Train the captioner again.")
        self.pieces = tuple(pieces)
        self._number = {piece: i for i, piece in enumerate(pieces, len(Special))}
        if len(self._number) != len(self.pieces):
            raise ValueError("pieces: must not repeat. Train the captioner again.")

    @classmethod
    def of_captions(cls, captions: Iterable[str], most: int, min_count: int) -> "Vocabulary":
        """Collect printable ASCII and the ``most`` commonest words seen ``min_count`` times."""
        counts = Counter(piece for text in captions for piece in _split(text))
        known = set(_CHARACTERS)
        words = [w for w, n in counts.items() if n >= min_count and w not in known]
        words.sort(key=lambda word: (-counts[word], word))
        return cls([*_CHARACTERS, *words[:most]])

    def __len__(self) -> int:
        return len(Special) + len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a caption, without start and end."""
        numbers: list[int] = []
        for piece in _split(text):
            if piece in self._number:
                numbers.append(self._number[piece])
            else:
                numbers += [self._number.get(letter, Special.unknown) for letter in piece]
        return numbers

    def decode(self, numbers: Iterable[int]) -> str:
        """Join the pieces of numbers; special ones are left out, all of ``unknown`` too."""
        first = len(Special)
        return "".join(self.pieces[n - first] for n in numbers if n >= first)


def _split(text: str) -> list[str]:
    return _PIECE.findall(" ".join(text.split()))
