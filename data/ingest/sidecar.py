"""Read what people wrote about files: captions, licences, sources, in small files beside them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

from data.media.reject import Reject, unreadable

SIDECARS = (".txt", ".json")
LICENCE_NAME = "licence.txt"
MAX_LICENCE_CHARACTERS = 200


class Named(Protocol):
    """A file found in an input."""

    @property
    def name(self) -> str:
        """Its path inside the input."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    def read(self, most: int) -> bytes:
        """Return at most so many of its bytes."""


File = TypeVar("File", bound=Named)


@dataclass(frozen=True)
class Told:
    """What is said of a file, or of a span of it in seconds; empty where nothing is.

    metadata: whatever else is said, in JSON types; it travels along as ``original``.
    """

    caption: str = ""
    short_caption: str = ""
    licence: str = ""
    source: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    span: tuple[float, float] | None = None


WORDS = ("caption", "short_caption", "licence", "source")


def read_sidecars(
    files: Iterable[File], most_bytes: int, reject: Callable[[str, Reject], None]
) -> tuple[list[File], Callable[[str], Told]]:
    """Return the media among files, and a function from a medium's name to what is told of it.

    A ``.txt`` or ``.json`` without a medium of its name is taken for a medium, so that it is not
    passed over in silence. ``reject`` hears of sidecars that cannot be read.
    """
    unique = {file.name: file for file in files}
    stems = {stem(name) for name in unique if not name.endswith(SIDECARS)}
    media: list[File] = []
    licences: dict[PurePosixPath, str] = {}
    told: dict[str, Told] = {}
    for name in sorted(unique, key=lambda n: n.endswith(".json")):  # JSON has the last word
        file, path = unique[name], PurePosixPath(name)
        try:
            if path.name == LICENCE_NAME:
                text = one_line(text_of(file, most_bytes))
                licences[path.parent] = text[:MAX_LICENCE_CHARACTERS]
            elif name.endswith(SIDECARS) and stem(name) in stems:
                told[stem(name)] = read_sidecar(file, told.get(stem(name), Told()), most_bytes)
        except Reject as error:
            reject(name, error)
    for name, file in unique.items():
        is_sidecar = name.endswith(SIDECARS) and stem(name) in stems
        if not is_sidecar and PurePosixPath(name).name != LICENCE_NAME:
            media.append(file)

    def lookup(name: str) -> Told:
        own = told.get(stem(name), Told())
        near = next((licences[p] for p in PurePosixPath(name).parents if p in licences), "")
        return replace(own, licence=own.licence or near)

    return media, lookup


def read_sidecar(file: Named, before: Told, most_bytes: int) -> Told:
    """Return what a sidecar says over what is known. Raises Reject if it is too long or no text."""
    text = text_of(file, most_bytes)
    if not file.name.endswith(".json"):
        return replace(before, caption=one_line(text))
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError("no JSON object")
        given = {name: values.pop(name) for name in WORDS if name in values}
        fields = {name: value for name, value in given.items() if value is not None}
        for name, value in fields.items():
            if not isinstance(value, str):
                raise TypeError(f"the {name} is not text")
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Reject(f"caption unreadable: {error}", "Store UTF-8 text.") from error
    said: dict[str, Any] = {name: one_line(value) for name, value in fields.items()}
    return replace(before, metadata=values, **said)


def text_of(file: Named, most_bytes: int) -> str:
    """Return a file as text. Raises Reject if it is too long or not UTF-8."""
    if file.nbytes > most_bytes:
        raise Reject(
            f"caption of {file.nbytes} bytes", f"Keep it under caption_bytes={most_bytes}."
        )
    try:
        return file.read(most_bytes).decode("utf-8")
    except OSError as error:
        raise unreadable(error) from error
    except ValueError as error:
        raise Reject(f"caption unreadable: {error}", "Store UTF-8 text.") from error


def one_line(text: str) -> str:
    """Return text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def stem(name: str) -> str:
    """Return a name without its last suffix."""
    return str(PurePosixPath(name).with_suffix(""))
