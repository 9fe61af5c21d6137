"""What an index says of one sample of a foreign shard: measured, and told by its own members."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data.dataset.sample import SampleInfo, is_count, is_key, is_real, is_table_of_numbers
from data.dataset.tar_writer import TRUTH_EXTENSION
from data.decode.pool import DecoderPool
from data.derive.members import Group, Member, last_suffix
from data.ingest.layouts import CAPTIONS, LICENCES, SHORTS, plain
from data.ingest.media_file import told_apart
from data.ingest.sidecar import one_line
from data.ingest.tables import list_of, plain_value

# A sidecar is metadata; one larger than this is an attack or a mistake.
MAX_SIDECAR_BYTES = 1_000_000
# Columns that name the film that a clip was cut from, so that splits keep it whole.
SOURCES = ("source", "videoid", "youtubeid", "url", "videourl", "videoloc")
SIZES = ("num_frames", "height", "width")
OPAQUE = ("key", "sha256", "shard", "offset", "nbytes")  # of whoever wrote it, not of this index


@dataclass(frozen=True)
class Rules:
    """How samples are indexed.

    licence: for samples without one. frames: the longest clip, in frames, 0 for no limit. step:
    lengths are 1 + k * step, so that whole latent frames hold them.
    """

    licence: str = "unknown"
    frames: int = 0
    step: int = 4

    def length(self, num_frames: int) -> int:
        """Return how many first frames of a clip are used."""
        most = min(num_frames, self.frames) if self.frames else num_frames
        return 1 + (most - 1) // self.step * self.step


@dataclass
class Described:
    """An index entry, and what should be known of it: kinds of notes with their words."""

    info: SampleInfo
    notes: dict[str, str] = field(default_factory=dict)


def describe(group: Group, rules: Rules, pool: DecoderPool) -> Described:
    """Work out the index entry of one sample; its key is still the foreign one.

    What this project wrote is taken at its word, which its digest vouches for. Of anything else
    sizes and lengths are measured, whatever its JSON says of them. Raises ValueError with the
    reason, and OSError where its bytes cannot be read.
    """
    values, words = read_sidecars(group)
    media, member = group.payload(values.get("media") == "latent")
    payload = member.read()
    digest = hashlib.sha256(payload).hexdigest()
    truth: Member | None = group.members.get(TRUTH_EXTENSION)
    place = {
        "key": group.key,
        "media": media,
        "sha256": digest,
        "shard": member.shard.name,
        "offset": member.offset,
        "nbytes": member.nbytes,
        "truth_offset": truth.offset if truth else 0,
        "truth_nbytes": truth.nbytes if truth else 0,
    }
    if media == "latent" or values.get("sha256") == digest:
        return Described(checked(own(values, words) | place, group))
    size = pool.probe(group.key, media, payload)
    told, notes = foreign(values, words, size, group)
    described = Described(checked(told | place, group, rules.licence), notes)
    if media == "video":
        described.info = cut(described.info, rules)
        if described.info.payload_frames:
            notes["cut in time"] = f"{described.info.num_frames} of {size['num_frames']} frames"
    return described


def own(values: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """Return what the JSON of a sample of this project says, or of a latent of anybody."""
    missing = {*SIZES, "fps"} - values.keys()
    if missing:
        raise ValueError(f"incomplete .json: a latent needs {', '.join(sorted(missing))}")
    num_frames, fps = values["num_frames"], values["fps"]
    # Where these have no use as numbers, SampleInfo says so with the sample's name.
    known = is_count(num_frames, 1) and is_real(fps) and fps > 0
    return {
        "duration_seconds": num_frames / fps if known else 0.0,
        "caption": words[0] if words else "",
        "original": {name: values[name] for name in SIZES},
    } | values


def foreign(
    values: dict[str, Any], words: list[str], size: dict[str, Any], group: Group
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a foreign sample, measured and told, and notes on them."""
    columns = {plain(column): column for column in reversed(list(values))}
    caption, used = captions_of(values, columns)
    short, short_used = captions_of(values, columns, SHORTS)
    captions = list(dict.fromkeys([*caption, *words]))
    texts = {
        field: next((values[columns[n]] for n in names if is_text(values, columns, n)), "")
        for field, names in (("source", SOURCES), ("licence", LICENCES))
    }
    rest = {column: plain_value(v) for column, v in values.items() if column not in used}
    for column in short_used:
        rest.pop(column, None)
    if len(captions) > 1:
        rest["captions"] = captions
    told = {
        **size,
        "duration_seconds": size["num_frames"] / size["fps"] if size["fps"] else 0.0,
        "caption": captions[0] if captions else "",
        "short_caption": short[0] if short else "",
        **{field: one_line(text) for field, text in texts.items() if text},
        "rendered": values.get("rendered") is True,
        "scores": values["scores"] if is_table_of_numbers(values.get("scores")) else {},
        "original": told_apart({k: v for k, v in rest.items() if k not in OPAQUE and v is not None})
        | {"key": group.key, "scale": 1.0}
        | {name: size[name] for name in SIZES},
    }
    said = {n: values[n] for n in (*SIZES, "fps") if is_real(values.get(n)) and values[n]}
    wrong = [n for n, value in said.items() if abs(value - size[n]) > 0.01 * size[n]]
    notes = {}
    if wrong:
        notes["its JSON is wrong"] = ", ".join(f"{n}={said[n]} is {size[n]:g}" for n in wrong)
    return told, notes


def is_text(values: dict[str, Any], columns: dict[str, str], name: str) -> bool:
    """Say whether a column holds words."""
    value = values.get(columns.get(name, ""))
    return isinstance(value, str) and bool(value.strip())


def captions_of(
    values: dict[str, Any], columns: dict[str, str], names: Sequence[str] = CAPTIONS
) -> tuple[list[str], set[str]]:
    """Return the captions of the first of some columns that holds any, and the columns read.

    Nothing at all (null, an empty text) is no caption. Raises ValueError where one is no text.
    """
    used: set[str] = set()
    for column in (columns[name] for name in names if name in columns):
        several = list_of(values[column])
        used.add(column)
        found = []
        for one in [values[column]] if several is None else several:
            if isinstance(one, dict | list | bool):
                raise ValueError(f"{column} is no text")
            found.append(one_line("" if one is None or one != one else str(one)))
        if any(found):
            return [text for text in found if text], used
    return [], used


def cut(info: SampleInfo, rules: Rules) -> SampleInfo:
    """Return a clip whose plan is to use its first 1 + k * step frames."""
    length = rules.length(info.num_frames)
    if length == info.num_frames:
        return info
    seconds = info.duration_seconds * length / info.num_frames
    frames = info.num_frames
    return replace(info, num_frames=length, duration_seconds=seconds, payload_frames=frames)


def checked(values: dict[str, Any], group: Group, licence: str = "unknown") -> SampleInfo:
    """Return an entry of these values. Raises ValueError where one has the wrong type."""
    shard = values["shard"].removesuffix(".tar")
    defaults = {
        "licence": licence,
        "rendered": False,
        # Up to a slash it names a group for the account.
        "source": f"{shard}/{group.key}",
    }
    info = SampleInfo.from_json(defaults | values | {"key": legal_key(group.key)})
    try:  # what it may carry unread, such as ``original``, must not end the writing of the index
        json.dumps(info.to_json(), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"unwritable .json: {error}") from error
    return info


def legal_key(key: str, salt: str = "") -> str:
    """Return a key that a shard of this project can hold: itself, or its words and a digest."""
    if is_key(key) and not salt:
        return key
    words = re.sub(r"[^A-Za-z0-9_+=@#~-]+", "_", key)[:48].strip("_")
    return f"{words or 'clip'}-{hashlib.sha256(f'{salt}{key}'.encode()).hexdigest()[:16]}"


def read_sidecars(group: Group) -> tuple[dict[str, Any], list[str]]:
    """Return what a sample's JSON says, and its texts. Raises ValueError with the reason."""
    values: dict[str, Any] = {}
    for member in group.tables():
        text = text_of(member)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"unreadable .json: {error}") from error
        if not isinstance(found, dict):
            raise ValueError("unreadable .json: no object")
        values = found | values
    if "cls" in group.members and group.members["cls"].nbytes < 100:
        values.setdefault("cls", one_line(text_of(group.members["cls"])))
    return values, [text for text in (one_line(text_of(m)) for m in group.texts()) if text]


def text_of(member: Member) -> str:
    """Return a member as text. Raises ValueError where it is too large or none."""
    kind = last_suffix(member.name)
    if member.nbytes > MAX_SIDECAR_BYTES:
        raise ValueError(f"oversized .{kind}: {member.nbytes} bytes")
    try:
        return member.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f".{kind} is not UTF-8: {error}") from error
