"""Batches of a data set that is encoded, and the shards they become.

A batch that is done lies in two files until all are: what is interrupted, or shared among tasks,
is not done twice.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from data.dataset.sample import SampleInfo
from data.dataset.shards import LOCATIONS, MANIFEST_NAME, ShardWriter, read_truth
from data.decode.pool import DecodeError
from data.files import write_json
from data.loading.batch import Sample
from models.codec.codec import Codec
from models.text import TextEncoder
from trainer.codec.statistics import ChannelStatistics

PARTS = ".parts"
_SHARD_BYTES = 64_000_000


@dataclass(frozen=True)
class Batch:
    """Samples that are read and encoded together; ``stem`` names the two files of the result.

    ``stem.bin`` holds the payloads one after another, ``stem.json``, written last, what
    ``assemble`` needs beside them.
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


def assemble(out: Path, batches: Sequence[Batch], train_split: str) -> dict[str, Any]:
    """Turn finished batches into shards in place of what was there; return what they tell."""
    (out / MANIFEST_NAME).unlink(missing_ok=True)  # first: without it nothing counts as whole
    for stale in out.iterdir():
        if stale.is_dir() and stale.name != PARTS:
            shutil.rmtree(stale)
    statistics, decoders, dropped = ChannelStatistics(), Counter[str](), []
    num_captions, num_cut = 0, 0
    for split, members in groupby(batches, lambda batch: batch.split):
        with ShardWriter(out, split, _SHARD_BYTES) as writer:
            for batch in members:
                record = json.loads(batch.record.read_text(encoding="utf-8"))
                decoders.update(record["decoders"])
                dropped += record["dropped"]
                num_captions += sum(bool(e["meta"]["caption"]) for e in record["samples"])
                num_cut += record.get("captions_cut", 0)  # batches of an earlier version tell none
                if split == train_split and record["samples"]:
                    statistics.merge(record["statistics"])
                with open(batch.payloads, "rb") as stream:
                    for entry in record["samples"]:
                        payload = stream.read(entry["nbytes"])
                        writer.write(entry["meta"], payload, "safetensors", entry["truth"])
    reading = {"dropped": dropped, "decoders": dict(decoders)}
    captions = {"written": num_captions, "cut": num_cut}
    return {
        "latent_statistics": statistics.summary(),
        "reading": reading,
        "captions_encoded": captions,
    }
