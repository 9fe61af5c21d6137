"""Index webdataset shards that other tools wrote: ``kinescale index ROOT SPLIT``.

usage: kinescale index ROOT SPLIT [--check]

ROOT is the dataset's folder, SPLIT its sub-folder of ``*.tar`` shards. ``--check`` reads every
payload again and verifies it.

Nothing is unpacked to disk and nothing is unpickled. Members that could only be there to escape a
folder (absolute names, ``..``, links, devices) are refused, and so is each sample that cannot be
read or whose JSON holds a wrong type; every refusal is listed with its reason in ``refused.jsonl``
beside the index.
"""

import hashlib
import json
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data.config import IngestConfig
from data.dataset.sample import SampleInfo, is_count, is_key, is_real
from data.dataset.shards import INDEX_NAME, TAR_FAILURES, TRUTH_EXTENSION, read_payload, write_index
from data.decode.pool import DecoderPool
from data.files import write_text
from data.media.reject import printable
from data.shell import OptionParser, command
from data.words import counted

log = logging.getLogger(__name__)

MEDIA_OF_EXTENSION = {
    **dict.fromkeys(("mp4", "webm", "mkv", "mov", "avi", "m4v"), "video"),
    **dict.fromkeys(("png", "jpg", "jpeg", "webp"), "image"),
    "safetensors": "latent",
}
REFUSED_NAME = "refused.jsonl"
# A sidecar is metadata; one larger than this is an attack or a mistake.
MAX_SIDECAR_BYTES = 1_000_000


@dataclass
class IndexReport:
    """Samples that were indexed, and (name, reason) of all that was refused."""

    infos: list[SampleInfo] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, name: str, reason: str) -> None:
        """List something that is refused; both may quote a name of any bytes."""
        self.refused.append((printable(name)[:200], printable(reason)))

    def text(self) -> str:
        """Return counts, and counts per reason."""
        lines = [
            f"indexed  {counted(len(self.infos), 'sample')}",
            f"refused  {len(self.refused):,}",
        ]
        reasons = Counter(reason.split(":")[0] for _, reason in self.refused)
        lines += [f"  {count:>6,}  {reason}" for reason, count in reasons.most_common()]
        return "\n".join(lines)


@dataclass
class Member:
    """Where a tar member's bytes lie; webdataset's grouping carries it in the place of data."""

    shard: Path
    offset: int
    nbytes: int

    def read(self) -> bytes:
        """Return the member's bytes."""
        with open(self.shard, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.nbytes)


def index_shards(root: Path | str, split: str, timeout_seconds: float = 60.0) -> IndexReport:
    """Build ``index.jsonl`` for the tars in ROOT/SPLIT, decoding what their JSON does not tell.

    Samples are what webdataset's own grouping makes of the members. Sizes come from the sample's
    JSON where it holds them, else from decoding the payload in a killable child. Raises ValueError
    if there are no tars or nothing in them could be indexed.
    """
    folder = Path(root) / split
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise ValueError(f"split={split}: {folder} holds no *.tar. Unpack .tar.gz shards first.")
    report = IndexReport()
    seen: set[str] = set()
    with DecoderPool(1, timeout_seconds) as pool:
        for shard in shards:
            for sample in grouped(shard, report):
                name = f"{shard.name}/{sample['__key__']}"
                try:
                    info = describe(sample, shard, pool)
                    if info.key in seen:
                        raise ValueError("repeats the key of an earlier sample")
                except (ValueError, OSError) as error:  # a DecodeError is a ValueError
                    report.refuse(name, str(error))
                    continue
                seen.add(info.key)
                report.infos.append(info)
    write_refused(folder, report)
    if not report.infos:
        raise ValueError(
            f"split={split}: none of the {len(report.refused)} entries in {folder} can be used. "
            f"Read {folder / REFUSED_NAME}, or ingest the files instead."
        )
    write_index(folder, report.infos)
    return report


def grouped(shard: Path, report: IndexReport) -> Iterator[dict[str, Any]]:
    """Yield webdataset samples of a tar, with :class:`Member` values."""
    from webdataset.tariterators import base_plus_ext, group_by_keys

    def split_name(name: str) -> tuple[str, str]:
        key, extension = base_plus_ext(name)
        if key is None:  # webdataset passes over it in silence
            report.refuse(f"{shard.name}/{name}", "no extension, so that it belongs to no sample")
        return key, extension

    def note(error: Exception) -> bool:
        report.refuse(shard.name, f"duplicate member: {error}"[:200])
        return True

    yield from group_by_keys(members(shard, report), keys=split_name, handler=note)


def members(shard: Path, report: IndexReport) -> Iterator[dict[str, Any]]:
    """Yield the safe, complete regular files of a tar in webdataset's ``fname, data`` form."""
    try:
        if not shard.is_file():  # a pipe of that name would be waited for, for ever
            raise OSError("no plain file")
        if printable(shard.name) != shard.name:
            raise OSError("its name is not UTF-8")
        end = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                reason = reason_to_refuse(entry, end)
                if reason:
                    report.refuse(f"{shard.name}/{entry.name}", reason)
                elif entry.isreg():
                    member = Member(shard, entry.offset_data, entry.size)
                    yield {"fname": entry.name, "data": member, "__url__": str(shard)}
                tar.members = []  # type: ignore[attr-defined]  # a tar of millions would stay in memory
    except TAR_FAILURES as error:
        report.refuse(shard.name, f"damaged tar: {error}")


def reason_to_refuse(entry: tarfile.TarInfo, end: int) -> str:
    """Return why a tar member is refused, or an empty text."""
    path = PurePosixPath(entry.name)
    if printable(entry.name) != entry.name:
        return "name is not UTF-8"
    if path.is_absolute() or entry.name.startswith("\\"):
        return "absolute name"
    if ".." in path.parts or "\\" in entry.name:
        return "name leaves its folder"
    if entry.issym() or entry.islnk():
        return "link"
    if entry.isdir():
        return ""
    if not entry.isreg() or entry.issparse():
        return "neither a plain file nor a folder"
    if entry.offset_data + entry.size > end:
        return "truncated"
    return ""


def describe(sample: dict[str, Any], shard: Path, pool: DecoderPool) -> SampleInfo:
    """Work out the index entry of one grouped sample.

    Raises ValueError with the reason, and OSError where its bytes cannot be read.
    """
    key = sample["__key__"].removeprefix("./")
    if not is_key(key):
        raise ValueError("unusable key: must be 1-80 of A-Z a-z 0-9 _ + = @ # ~ -")
    found = [extension for extension in sample if extension in MEDIA_OF_EXTENSION]
    if len(found) != 1:
        raise ValueError(f"payloads {found}: exactly one video, image or latent is needed")
    member: Member = sample[found[0]]
    media = MEDIA_OF_EXTENSION[found[0]]
    payload = member.read()
    values = read_sidecars(sample)
    truth: Member | None = sample.get(TRUTH_EXTENSION)
    values |= {
        "key": key,
        "media": media,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "shard": shard.name,
        "offset": member.offset,
        "nbytes": member.nbytes,
        "truth_offset": truth.offset if truth else 0,
        "truth_nbytes": truth.nbytes if truth else 0,
    }
    if not {"num_frames", "height", "width", "fps"} <= values.keys():
        values |= measure(key, media, payload, pool)
    num_frames, fps = values["num_frames"], values["fps"]
    # Where these have no use as numbers, SampleInfo says so with the sample's name.
    known = is_count(num_frames, 1) and is_real(fps) and fps > 0
    defaults = {
        "duration_seconds": num_frames / fps if known else 0.0,
        "caption": "",
        "source": shard.stem,
        "licence": "unknown",
        "rendered": False,
        "original": {name: values[name] for name in ("num_frames", "height", "width")},
    }
    info = SampleInfo.from_json(defaults | values)
    try:  # what it may carry unread, such as ``original``, must not end the writing of the index
        json.dumps(info.to_json(), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"unwritable .json: {error}") from error
    return info


def read_sidecars(sample: dict[str, Any]) -> dict[str, Any]:
    """Return what the sample's JSON and caption file say. Raises ValueError with the reason."""
    texts: dict[str, str] = {}
    for extension in ("json", "txt"):
        member: Member | None = sample.get(extension)
        if member is None:
            continue
        if member.nbytes > MAX_SIDECAR_BYTES:
            raise ValueError(f"oversized .{extension}: {member.nbytes} bytes")
        try:
            texts[extension] = member.read().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f".{extension} is not UTF-8: {error}") from error
    try:
        values = json.loads(texts.get("json", "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"unreadable .json: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("unreadable .json: no object")
    values.setdefault("caption", texts.get("txt", "").strip())
    limit = IngestConfig().caption_bytes
    if isinstance(values["caption"], str) and len(values["caption"].encode()) > limit:
        raise ValueError(f"caption too long: over {limit} bytes")
    return values


def measure(key: str, media: str, payload: bytes, pool: DecoderPool) -> dict[str, Any]:
    """Return ``num_frames, height, width, fps`` of a payload by decoding it."""
    if media == "latent":
        raise ValueError("incomplete .json: a latent needs num_frames, height, width and fps")
    return pool.probe(key, media, payload)


def write_refused(folder: Path, report: IndexReport) -> None:
    """Write the refusals beside the index, one a line."""
    lines = [json.dumps({"name": n, "reason": r}) + "\n" for n, r in report.refused]
    write_text(folder / REFUSED_NAME, "".join(lines))


@command(__doc__, doing="reading the shards")
def main(arguments: list[str]) -> int:
    """Index one split and print what was found and refused."""
    parser = OptionParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("split")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    report = index_shards(options.root, options.split)
    if options.check:
        for info in report.infos:
            read_payload(options.root, options.split, info)
    print(report.text())
    print(f"wrote {options.root / options.split / INDEX_NAME}")
    return 0


if __name__ == "__main__":
    main.run()
