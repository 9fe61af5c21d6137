"""The index of a large split in columns: 32 bytes a sample, memory-mapped, shared by all ranks.

``index.jsonl`` stays what counts. ``index.columns`` beside it holds what planning needs of every
sample, and where its line lies; a line is read once its sample is planned. It is written with the
index of a large split, or made once, where an older one is first opened.

    one line of JSON   version, rows, digest of the plan, the index's bytes, each array's place
    arrays             little-endian, each at a multiple of 64 bytes (``ARRAYS``)
"""

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.dataset.sample import MEDIA, SampleInfo
from data.files import OpenFile, replacing

COLUMNS_NAME = "index.columns"
VERSION = 1
ALIGNED_BYTES = 64
MOST_TOKENS = 2**16 - 2  # of a caption, whose column has two bytes
# Of each sample: where its line begins, the first eight bytes of its key's SHA-256, numbers of its
# shape, source and shard, tokens of its captions (of the short one 1 more, 0 where it has none).
ROW = {"line": "<u8", "key": "<u8", "shape": "<u4", "source": "<u4", "shard": "<u4"} | {
    "caption": "<u2", "short": "<u2",
}  # fmt: skip
# Of all: shapes (media, frames, height, width) with their counts; kinds (shape, caption, short,
# count); the names of sources and shards, one after another, and where each ends.
ARRAYS = ROW | {
    "shapes": "<i8", "shape_counts": "<i8", "kinds": "<i8",
    "sources": "<u1", "source_ends": "<u8", "shards": "<u1", "shard_ends": "<u8",
}  # fmt: skip


class Shape(NamedTuple):
    """What a sample's tokens depend on: its medium, frames and pixels."""

    media: str
    num_frames: int
    height: int
    width: int


class Kind(NamedTuple):
    """What the FLOPs of a sample depend on; ``short_caption`` is some text or none."""

    num_frames: int
    height: int
    width: int
    caption_tokens: int
    short_caption: str
    short_caption_tokens: int


@dataclass(frozen=True)
class Columns:
    """The columns of one split; rows are samples in the order of the index."""

    lines: OpenFile
    nbytes: int
    arrays: dict[str, NDArray[Any]]
    digest: str
    remedy: str

    def __len__(self) -> int:
        return len(self.arrays["line"])

    def read(self, row: int) -> SampleInfo:
        """Return all that the index says of a sample. Raises ValueError if it is another one."""
        starts = self.arrays["line"]
        last = row + 1 == len(starts)
        start, stop = int(starts[row]), self.nbytes if last else int(starts[row + 1])
        line = os.pread(self.lines.descriptor, stop - start, start)  # not mapped: that is memory
        try:
            info = SampleInfo(**json.loads(line))  # its values were checked when columns were made
            if key_number(info.key) == self.arrays["key"][row]:
                return info
        except (ValueError, TypeError):
            pass
        raise ValueError(f"row={row}: the index changed after {COLUMNS_NAME}. {self.remedy}")

    def names(self, of: str) -> list[str]:
        """Return all names ``of`` sources or shards."""
        whole, ends = self.arrays[f"{of}s"].tobytes(), self.arrays[f"{of}_ends"].tolist()
        return [whole[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def shapes_of(arrays: dict[str, NDArray[Any]]) -> list[Shape]:
    """Return the different shapes."""
    rows = arrays["shapes"].reshape(-1, 4).tolist()
    return [Shape(MEDIA[medium], *size) for medium, *size in rows]


def key_number(key: str) -> int:
    """Return the first eight bytes of a key's SHA-256 as a number: keys are in that order, too."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def planned_line(info: SampleInfo) -> bytes:
    """Return what a plan depends on of a sample; digests of an index are over these."""
    return f"{info.key} {info.sha256} {info.num_frames} {info.height} {info.width}\n".encode()


class ColumnBuilder:
    """Collect the columns of samples, each given with the place of its line."""

    def __init__(self) -> None:
        codes = {"<u8": "Q", "<u4": "I", "<u2": "H"}
        self.rows = {name: array(codes[kind]) for name, kind in ROW.items()}
        self.shapes: dict[tuple[int, ...], int] = {}
        self.sources: dict[str, int] = {}
        self.shards: dict[str, int] = {}
        self.kinds: Counter[tuple[int, int, int]] = Counter()
        self.digest = hashlib.sha256()

    def add(self, info: SampleInfo, line: int) -> None:
        """Add a sample whose line begins at byte ``line``."""
        size = MEDIA.index(info.media), info.num_frames, info.height, info.width
        shape = self.shapes.setdefault(size, len(self.shapes))
        caption = min(info.caption_tokens, MOST_TOKENS)
        short = min(info.short_caption_tokens, MOST_TOKENS) + 1 if info.short_caption else 0
        self.kinds[shape, caption, short] += 1
        values = {
            "line": line,
            "key": key_number(info.key),
            "shape": shape,
            "source": self.sources.setdefault(info.source, len(self.sources)),
            "shard": self.shards.setdefault(info.shard, len(self.shards)),
            "caption": caption,
            "short": short,
        }
        for name, value in values.items():
            self.rows[name].append(value)
        self.digest.update(planned_line(info))

    def repeated(self) -> list[tuple[int, int]]:
        """Return pairs of rows whose keys are equal in their first eight bytes, nearly surely."""
        keys = np.frombuffer(self.rows["key"], "<u8")
        order = np.argsort(keys, kind="stable")
        places = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        return [(int(order[i]), int(order[i + 1])) for i in places]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays of the file."""
        kinds = [(*kind, count) for kind, count in self.kinds.items()]
        counts = Counter[int]()
        for shape, _, _, count in kinds:
            counts[shape] += count
        made = {name: np.frombuffer(values, ROW[name]) for name, values in self.rows.items()}
        made["shapes"] = np.array(list(self.shapes), "<i8").ravel()
        made["shape_counts"] = np.array([counts[i] for i in range(len(self.shapes))], "<i8")
        made["kinds"] = np.array(kinds, "<i8").ravel()
        for of, names in (("source", self.sources), ("shard", self.shards)):
            made[f"{of}s"], made[f"{of}_ends"] = _packed(names)
        return made

    def write(self, folder: Path) -> None:
        """Write the file beside the index, which must be there, whole or not at all."""
        made = self.arrays()
        head = {
            "version": VERSION,
            "index_nbytes": (folder / "index.jsonl").stat().st_size,
            "digest": self.digest.hexdigest(),
            "arrays": {name: len(values) for name, values in made.items()},
        }
        with replacing(folder / COLUMNS_NAME) as temporary, open(temporary, "wb") as stream:
            stream.write(json.dumps(head).encode() + b"\n")
            for name in ARRAYS:
                stream.write(bytes(-stream.tell() % ALIGNED_BYTES))
                stream.write(made[name].tobytes())


def _packed(names: Iterable[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    texts = [name.encode() for name in names]
    return np.frombuffer(b"".join(texts), "<u1"), np.cumsum([len(t) for t in texts], dtype="<u8")


def open_columns(folder: Path, remedy: str) -> Columns | None:
    """Map the columns of a split's folder; None where there are none of its present index."""
    path = folder / COLUMNS_NAME
    try:
        mapped = np.memmap(path, np.uint8, "r")
        end = bytes(mapped[: 1 << 16]).index(b"\n") + 1
        head = json.loads(bytes(mapped[:end]))
        lines = OpenFile(folder / "index.jsonl")
        size = os.fstat(lines.descriptor).st_size
        if (head["version"], head["index_nbytes"]) != (VERSION, size):
            return None
        arrays, place = {}, end
        for name, kind in ARRAYS.items():
            place += -place % ALIGNED_BYTES
            nbytes = head["arrays"][name] * np.dtype(kind).itemsize
            if place + nbytes > len(mapped):
                return None
            arrays[name] = np.asarray(mapped[place : place + nbytes]).view(kind)
            place += nbytes
        return Columns(lines, size, arrays, str(head["digest"]), remedy)
    except (OSError, ValueError, KeyError, TypeError):  # none there, or of another program
        return None
