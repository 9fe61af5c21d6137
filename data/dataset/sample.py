"""What is known of one sample without opening its payload: a line of the index."""

import dataclasses
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeGuard

MEDIA = ("video", "image", "latent")
# webdataset splits member names at the first dot and ustar names end at 100 bytes.
KEY_PATTERN = re.compile(r"[A-Za-z0-9_+=@#~-]{1,80}")
MAX_COUNT = 2**53  # the largest that every reader of JSON keeps exact
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SampleInfo:
    """What is known of one sample without opening its payload.

    ``num_frames``, ``height`` and ``width`` are source frames and pixels, also for latents;
    ``duration_seconds`` and ``fps`` (frames per second, 0 for stills) describe the clip, and
    ``original`` the file it was cut from. ``offset`` and ``nbytes`` locate the payload in
    ``shard``, a file name inside the split's folder. ``caption`` is the dense description and
    ``short_caption`` a few words, empty where nobody wrote any; their token counts are 0 where they
    are only text. ``shots`` lists the first frame of every shot after the first, ``scores`` what
    the filters measured. ``truth_offset`` and ``truth_nbytes`` locate what a simulator knows
    (``data.dataset.shards.read_truth``); no bytes means nothing is known. ``payload_frames`` is how
    many frames the payload holds where those after ``num_frames`` are never used, else 0.
    """

    key: str
    media: str
    num_frames: int
    height: int
    width: int
    fps: float
    duration_seconds: float
    caption: str
    source: str
    licence: str
    rendered: bool
    sha256: str
    original: dict[str, Any] = field(hash=False)
    shard: str
    offset: int
    nbytes: int
    caption_tokens: int = 0
    short_caption: str = ""
    short_caption_tokens: int = 0
    shots: list[int] = field(default_factory=list, hash=False)
    scores: dict[str, float] = field(default_factory=dict, hash=False)
    truth_offset: int = 0
    truth_nbytes: int = 0
    payload_frames: int = 0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Build from a decoded JSON object; unknown keys are ignored.

        Raises ValueError as ``key=value: rule. remedy.`` where a value is missing, has the wrong
        type or is out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"sample={shown(values)}: must be a JSON object. Rebuild the index.")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        taken: dict[str, Any] = {}
        for name, spec in fields.items():
            if name in values:
                taken[name] = values[name]
            elif spec.default is spec.default_factory is dataclasses.MISSING:
                raise ValueError(
                    f"{name}=(missing): every sample needs it (sample {shown(values.get('key'))}). "
                    "Rebuild the shards or add it to the sample's JSON."
                )
        info = cls(**taken)
        info._check()
        # JSON writes 24.0 as 24 in some tools; one type keeps digests of the index stable.
        return dataclasses.replace(
            info, fps=float(info.fps), duration_seconds=float(info.duration_seconds)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON-serialisable dict, in declaration order."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if not self.payload_frames:  # the index of what ingest writes is as it always was
            del values["payload_frames"]
        return values

    @property
    def payload_shape(self) -> tuple[int, int, int]:
        """The (F, H, W) that decoding the payload gives; the first ``num_frames`` are used."""
        return self.payload_frames or self.num_frames, self.height, self.width

    def _check(self) -> None:
        still = self.num_frames == 1
        rules: list[tuple[str, bool, str]] = [
            ("key", is_key(self.key), "must be 1-80 of A-Z a-z 0-9 _ + = @ # ~ -"),
            ("media", self.media in MEDIA, f"must be one of {', '.join(MEDIA)}"),
            ("num_frames", is_count(self.num_frames, 1), "must be an integer of at least 1"),
            ("height", is_count(self.height, 1), "must be an integer of at least 1 pixel"),
            ("width", is_count(self.width, 1), "must be an integer of at least 1 pixel"),
            ("fps", is_real(self.fps) and (self.fps > 0 or still), "must be a positive number"),
            ("duration_seconds", is_real(self.duration_seconds), "must be a number of at least 0"),
            ("caption", isinstance(self.caption, str), "must be text"),
            ("source", isinstance(self.source, str), "must be text"),
            ("licence", isinstance(self.licence, str), "must be text"),
            ("rendered", isinstance(self.rendered, bool), "must be true or false"),
            ("sha256", is_sha256(self.sha256), "must be 64 hexadecimal digits"),
            ("original", isinstance(self.original, dict), "must be a JSON object"),
            ("shard", is_file_name(self.shard), "must be a file name without folders"),
            ("offset", is_count(self.offset, 0), "must be an integer of at least 0 bytes"),
            ("nbytes", is_count(self.nbytes, 1), "must be an integer of at least 1 byte"),
            ("caption_tokens", is_count(self.caption_tokens, 0), "must be an integer >= 0"),
            ("short_caption", isinstance(self.short_caption, str), "must be text"),
            ("short_caption_tokens", is_count(self.short_caption_tokens, 0), "must be >= 0"),
            ("shots", self._shots_rise(), "must be rising frame numbers in the clip"),
            ("scores", is_table_of_numbers(self.scores), "must be names with finite numbers"),
            ("truth_offset", is_count(self.truth_offset, 0), "must be an integer of bytes >= 0"),
            ("truth_nbytes", is_count(self.truth_nbytes, 0), "must be an integer of bytes >= 0"),
            ("num_frames", self.media != "image" or still, "must be 1 for media=image"),
            ("payload_frames", self._holds_its_frames(), "must be 0 or above num_frames"),
        ]
        for name, holds, rule in rules:
            if not holds:
                value = shown(getattr(self, name))
                raise ValueError(
                    f"{name}={value}: {rule} (sample {shown(self.key)}). "
                    "Correct the sample's JSON and rebuild the index."
                )

    def _holds_its_frames(self) -> bool:
        held = self.payload_frames
        return held == 0 or (is_count(held, 1) and held > self.num_frames)

    def _shots_rise(self) -> bool:
        shots = self.shots
        if not isinstance(shots, list) or not all(is_count(frame, 1) for frame in shots):
            return False
        if not is_count(self.num_frames, 1):
            return False
        return shots == sorted(set(shots)) and all(frame < self.num_frames for frame in shots)


def shown(value: object) -> str:
    """Return the start of a value's ``repr``, of whatever depth and size it is."""
    try:
        return repr(value)[:80]
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        return f"({type(value).__name__})"


def world_of(source: str) -> str:
    """Return the world of a clip, the first part of its source: rooms/seed-7 is of rooms."""
    return source.split("/")[0]


def is_key(value: object) -> bool:
    """Say whether a value can be a sample key: no folders, no dots, fits a ustar name."""
    return isinstance(value, str) and KEY_PATTERN.fullmatch(value) is not None


def is_count(value: object, least: int) -> bool:
    """Say whether a value is an integer (not a bool) from ``least`` to MAX_COUNT."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


def is_number(value: object) -> TypeGuard[int | float]:
    """Say whether a value is a finite number, not a bool, and no larger than a float can be."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # isfinite raises for an integer beyond it


def is_real(value: object) -> bool:
    """Say whether a value is a finite number of at least 0."""
    return is_number(value) and value >= 0


def is_table_of_numbers(value: object) -> bool:
    """Say whether a value maps texts to finite numbers."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and is_number(number) for name, number in value.items()
    )


def is_sha256(value: object) -> bool:
    """Say whether a value is a hexadecimal SHA-256 digest."""
    return isinstance(value, str) and SHA256_PATTERN.fullmatch(value) is not None


def is_file_name(value: object) -> bool:
    """Say whether a value names a file directly inside a folder."""
    return isinstance(value, str) and value not in ("", ".", "..") and Path(value).name == value
