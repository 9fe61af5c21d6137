"""Parts of a data set that is encoded: each has shards of its own, and is final.

A part is made of consecutive samples of one shard of the source, so that what is added there adds
parts here. It is encoded in batches, which lie in two files each until all of the part's are there:
what is interrupted is not done twice.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from data.dataset.part import PartName, PartWriter, is_whole, numbers_there, part_id, read_piece
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_truth
from data.dataset.tar_writer import LOCATIONS
from data.decode.pool import DecodeError
from data.files import write_json
from data.loading.batch import Sample
from models.codec.codec import Codec
from models.text import TextEncoder
from trainer.codec.statistics import ChannelStatistics
from trainer.config import RunConfig

BATCHES = ".parts"
BATCH = 64  # samples read and captioned together
PART_BATCHES = 8
_SHARD_BYTES = 64_000_000


@dataclass(frozen=True)
class Part:
    """Samples whose latents get shards of their own; ``made_of`` decides every byte of them."""

    run: RunConfig
    out: Path
    name: PartName
    infos: list[SampleInfo]
    made_of: str

    @property
    def batches(self) -> list["Batch"]:
        """What is read and encoded together."""
        stem = self.out / BATCHES / self.name.id
        starts = range(0, len(self.infos), BATCH)
        return [
            Batch(self.name.split, self.infos[start : start + BATCH],
                  stem.with_name(f"{stem.name}-{start // BATCH:06d}"))
            for start in starts
        ]  # fmt: skip

    @property
    def piece(self) -> Path:
        """The file that exists once the part is done."""
        return self.name.piece(self.out)

    def is_whole(self) -> bool:
        """Say whether the part is done and its shards hold what they did."""
        piece = read_piece(self.piece)
        return piece is not None and is_whole(piece, by_digest=True)


@dataclass(frozen=True)
class Batch:
    """Samples that are read and encoded together; ``stem`` names the two files of the result.

    ``stem.bin`` holds the payloads one after another, ``stem.json``, written last, what
    ``seal`` needs beside them.
    """

    split: str
    infos: list[SampleInfo]
    stem: Path

    @property
    def record(self) -> Path:
        """The file that exists once the batch is done."""
        return self.stem.with_suffix(".json")

    @property
    def payloads(self) -> Path:
        """The file of the payloads, one after another."""
        return self.stem.with_suffix(".bin")

    def is_whole(self) -> bool:
        """Say whether the batch is done and its payloads are still those that were written."""
        if not self.record.exists() or not self.payloads.exists():
            return False
        record = json.loads(self.record.read_text(encoding="utf-8"))
        if self.payloads.stat().st_size != sum(one["nbytes"] for one in record["samples"]):
            return False
        return bool(record.get("sha256") == digest_of(self.payloads))


def plan_parts(
    run: RunConfig, out: Path, infos: dict[str, list[SampleInfo]], settings: str
) -> list[Part]:
    """Cut all splits into parts, in order; ``settings`` is a digest of codec and text encoder."""
    parts = []
    size = BATCH * PART_BATCHES
    for split, members in infos.items():
        there, number = numbers_there(out, split), 0
        for _, shard in groupby(members, lambda info: info.shard):
            samples = list(shard)
            for start in range(0, len(samples), size):
                chosen = samples[start : start + size]
                made_of = made_from(settings, split, chosen)
                id = part_id([made_of])
                name = PartName(split, there.get(id, number), id)
                parts.append(Part(run, out, name, chosen, made_of))
                number += 1
    return parts


def made_from(settings: str, split: str, infos: Iterable[SampleInfo]) -> str:
    """Return a digest of all that decides the latents and caption states of samples."""
    read = [[i.key, i.sha256, i.caption, i.short_caption] for i in infos]
    return hashlib.sha256(json.dumps([settings, split, read]).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def encode_batch(
    source: Path, codec: Codec, text: TextEncoder, item: tuple[Batch, list[Sample | DecodeError]]
) -> Batch:
    """Encode one batch and write its two files."""
    batch, found = item
    samples = [sample for sample in found if isinstance(sample, Sample)]
    captions = text.encode([s.info.caption for s in samples])
    shorts = text.encode([s.info.short_caption for s in samples])
    statistics, entries = ChannelStatistics(), []
    written = hashlib.sha256()
    with open(batch.payloads, "wb") as stream:
        for sample, caption, short in zip(samples, captions, shorts, strict=True):
            assert sample.frames is not None
            info, latent = sample.info, codec.encode(sample.frames)
            statistics.add(latent, codec.valid(info.num_frames, info.height, info.width))
            tensors = {"latent": latent, "caption": caption}
            tensors |= {"short_caption": short} if info.short_caption else {}
            # fp16 keeps 11 bits of values near 1, far below pixel noise.
            stored = {name: value.half().contiguous() for name, value in tensors.items()}
            payload = save(stored)
            nbytes = stream.write(payload)
            written.update(payload)
            truth = read_truth(source, batch.split, info)
            entries.append({"meta": _meta(info, tensors), "nbytes": nbytes, "truth": truth})
        stream.flush()
        os.fsync(stream.fileno())
    record = {
        "samples": entries,
        "sha256": written.hexdigest(),
        "statistics": statistics.sums,
        "captions_cut": text.num_cut([s.info.caption for s in samples]),
        "decoders": Counter(sample.decoder for sample in samples),
        "dropped": [[s.key, s.reason] for s in found if not isinstance(s, Sample)],
    }
    write_json(batch.record, record)
    return batch


def _meta(info: SampleInfo, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the index entry of a latent, without what its shard adds."""
    computed = ("sha256", "payload_frames", *LOCATIONS)
    meta = {k: v for k, v in info.to_json().items() if k not in computed}
    lengths = {f"{n}_tokens": len(v) for n, v in tensors.items() if n != "latent"}
    return meta | {"media": "latent"} | lengths


def seal(part: Part) -> None:
    """Turn the finished batches of a part into its shards and its piece of the index."""
    told: list[dict[str, Any]] = []
    try:
        with PartWriter(part.out, part.name, [part.made_of], _SHARD_BYTES) as writer:
            for batch in part.batches:
                record = json.loads(batch.record.read_text(encoding="utf-8"))
                with open(batch.payloads, "rb") as stream:
                    for entry in record["samples"]:
                        payload = stream.read(entry["nbytes"])
                        writer.write(entry["meta"], payload, "safetensors", entry["truth"])
                told.append({k: v for k, v in record.items() if k not in ("samples", "sha256")})
            writer.said["batches"] = told
    except FileNotFoundError:
        if not part.is_whole():  # else another process sealed it meanwhile
            raise
    for batch in part.batches:
        batch.record.unlink(missing_ok=True)
        batch.payloads.unlink(missing_ok=True)
