"""Encode a data set of clips into latents and caption states, once for many runs.

usage: python -m trainer.encode out=FOLDER [data.root=FOLDER] [key=value ...]

example:
  python -m trainer.encode data.root=datasets/demo/video out=datasets/demo/latents
  python -m trainer.encode codec=vae_tiny data.root=datasets/demo/video out=datasets/demo/latents

The codec and the text encoder are those of the composed run (codec=..., text.kind=...). The result
carries a digest of both and of its source; an equal result is kept, a stale one is made anew. An
interrupted command goes on where it was: finished batches wait in OUT/.parts until all are there.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from data.batch import Sample
from data.decoder_pool import DecodeError
from data.loader import SampleReader, index_digest
from data.progress import Progress
from data.sample import SampleInfo
from data.shards import (
    LOCATIONS,
    MANIFEST_NAME,
    ShardWriter,
    read_index,
    read_manifest,
    read_truth,
    write_atomically,
    write_manifest,
)
from models.codec import Codec
from models.text import TextEncoder, build_text_encoder
from trainer.codec import load_codec
from trainer.codec_files import fingerprint
from trainer.config import RunConfig, compose_run
from trainer.latent_statistics import ChannelStatistics

log = logging.getLogger("trainer")
_BATCH = 64  # samples read and captioned together
_PARTS = ".parts"
_SHARD_BYTES = 64_000_000
FORMAT = 2
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Batch:
    """Samples that are read and encoded together; ``stem`` names the two files of the result.

    ``stem.bin`` holds the payloads one after another, ``stem.json``, written last, what
    ``_assemble`` needs beside them.
    """

    split: str
    infos: list[SampleInfo]
    stem: Path

    @property
    def record(self) -> Path:
        """The file that exists once the batch is done."""
        return self.stem.with_suffix(".json")


def encode_dataset(run: RunConfig, out: Path) -> dict[str, Any]:
    """Encode every split of ``run.data.root`` into ``out``; return its manifest.

    Raises ValueError without a source, or if ``out`` holds something else.
    """
    source = Path(run.data.root)
    manifest = read_manifest(source)
    splits = sorted(p.parent.name for p in source.glob("*/index.jsonl"))
    if not splits:
        raise ValueError(f"data.root={source}: holds no split. Run python -m data.demo first.")
    infos = {split: read_index(source, split) for split in splits}
    if any(info.media == "latent" for members in infos.values() for info in members):
        raise ValueError(
            f"data.root={source}: holds latents but must hold clips. Name their source."
        )
    digest = _digest(run, infos)
    if (out / MANIFEST_NAME).exists() and read_manifest(out).get("encoded") == digest:
        return read_manifest(out)
    batches = _batches(infos, _prepare(out, digest))
    _encode_missing(run, batches)
    found = _assemble(out, batches, run.data.train_split)
    kept = {k: v for k, v in manifest.items() if k not in ("shards",)}
    extra = {"encoded": digest, "codec": fingerprint(run.codec), "text": asdict(run.text)}
    write_manifest(out, kept | extra | found)
    shutil.rmtree(out / _PARTS)
    return read_manifest(out)


def _prepare(out: Path, digest: str) -> Path:
    """Return the folder of finished batches, without those of another source or codec."""
    ours = (out / _PARTS).exists() or "encoded" in _manifest_of(out)
    if out.exists() and any(out.iterdir()) and not ours:
        raise ValueError(
            f"out={out}: holds files that are no encoded data set, which this would replace. "
            "Choose another folder, or delete it."
        )
    parts = out / _PARTS / f"{digest[:16]}-{_BATCH}"
    for other in set((out / _PARTS).glob("*")) - {parts}:
        shutil.rmtree(other)
    parts.mkdir(parents=True, exist_ok=True)
    return parts


def _manifest_of(root: Path) -> dict[str, Any]:
    return read_manifest(root) if (root / MANIFEST_NAME).exists() else {}


def _batches(infos: dict[str, list[SampleInfo]], parts: Path) -> list[Batch]:
    """Cut all splits into batches, in order."""
    return [
        Batch(split, members[start : start + _BATCH], parts / f"{split}-{start // _BATCH:06d}")
        for split, members in infos.items()
        for start in range(0, len(members), _BATCH)
    ]


def _encode_missing(run: RunConfig, batches: list[Batch]) -> None:
    """Encode the batches that are not there yet, in threads; torch computes without the GIL."""
    missing = [batch for batch in batches if not batch.record.exists()]
    total = sum(len(batch.infos) for batch in batches)
    done = total - sum(len(batch.infos) for batch in missing)
    console = Console()
    if done:
        console.print(f"encode: {done} of {total} samples are there already", highlight=False)
    codec, text = load_codec(run.codec), build_text_encoder(run.text)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one batch a core: more than two threads in one batch
    try:
        with Progress("encode", console) as progress:
            progress.update(done, total, "")
            work = partial(_encode_batch, Path(run.data.root), codec, text)
            for batch in _in_threads(work, _read(run, missing)):
                done += len(batch.infos)
                progress.update(done, total, batch.split)
    finally:
        torch.set_num_threads(threads)


def _encode_batch(
    source: Path, codec: Codec, text: TextEncoder, item: tuple[Batch, list[Sample | DecodeError]]
) -> Batch:
    """Encode one batch and write its two files."""
    batch, found = item
    samples = [sample for sample in found if isinstance(sample, Sample)]
    captions = text.encode([s.info.caption for s in samples])
    shorts = text.encode([s.info.short_caption for s in samples])
    statistics, entries = ChannelStatistics(), []
    with open(batch.stem.with_suffix(".bin"), "wb") as stream:
        for sample, caption, short in zip(samples, captions, shorts, strict=True):
            assert sample.frames is not None
            info, latent = sample.info, codec.encode(sample.frames)
            statistics.add(latent, codec.valid(info.num_frames, info.height, info.width))
            tensors = {"latent": latent, "caption": caption}
            tensors |= {"short_caption": short} if info.short_caption else {}
            # fp16 keeps 11 bits of values near 1, far below pixel noise.
            stored = {name: value.half().contiguous() for name, value in tensors.items()}
            nbytes = stream.write(save(stored))
            truth = read_truth(source, batch.split, info)
            entries.append({"meta": _meta(info, tensors), "nbytes": nbytes, "truth": truth})
        stream.flush()
        os.fsync(stream.fileno())
    record = {
        "samples": entries,
        "statistics": statistics.sums,
        "decoders": Counter(sample.decoder for sample in samples),
        "dropped": [[s.key, s.reason] for s in found if not isinstance(s, Sample)],
    }
    write_atomically(batch.record, lambda file: json.dump(record, file))
    return batch


def _meta(info: SampleInfo, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the index entry of a latent, without what its shard adds."""
    computed = ("sha256", *LOCATIONS)
    meta = {k: v for k, v in info.to_json().items() if k not in computed}
    lengths = {f"{n}_tokens": len(v) for n, v in tensors.items() if n != "latent"}
    return meta | {"media": "latent"} | lengths


def _assemble(out: Path, batches: list[Batch], train_split: str) -> dict[str, Any]:
    """Turn finished batches into shards in place of what was there; return what they tell."""
    for stale in out.iterdir():
        if stale.is_dir() and stale.name != _PARTS:
            shutil.rmtree(stale)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    statistics, decoders, dropped = ChannelStatistics(), Counter[str](), []
    for split, members in groupby(batches, lambda batch: batch.split):
        with ShardWriter(out, split, _SHARD_BYTES) as writer:
            for batch in members:
                record = json.loads(batch.record.read_text())
                decoders.update(record["decoders"])
                dropped += record["dropped"]
                if split == train_split and record["samples"]:
                    statistics.merge(record["statistics"])
                with open(batch.stem.with_suffix(".bin"), "rb") as stream:
                    for entry in record["samples"]:
                        payload = stream.read(entry["nbytes"])
                        writer.write(entry["meta"], payload, "safetensors", entry["truth"])
    reading = {"dropped": dropped, "decoders": dict(decoders)}
    return {"latent_statistics": statistics.summary(), "reading": reading}


def _in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map in order, one thread a core, reading at most one item ahead of them."""
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(
    run: RunConfig, batches: list[Batch]
) -> Iterator[tuple[Batch, list[Sample | DecodeError]]]:
    """Yield batches with their decoded samples; unreadable ones are reported, not encoded."""
    for split, members in groupby(batches, lambda batch: batch.split):
        waiting = list(members)
        reader = SampleReader(run.data, split, [info for batch in waiting for info in batch.infos])
        try:
            for batch in waiting:
                found = reader.read([(info, 0) for info in batch.infos])
                for sample in found:
                    if not isinstance(sample, Sample):
                        log.warning("dropped %s", sample)
                yield batch, found
        finally:
            reader.close()


def _digest(run: RunConfig, infos: dict[str, list[SampleInfo]]) -> str:
    parts = {
        "format": FORMAT,
        "codec": fingerprint(run.codec),
        "text": asdict(run.text),
        "source": {split: index_digest(members) for split, members in infos.items()},
        "captions": {
            split: [[i.caption, i.short_caption] for i in members]
            for split, members in infos.items()
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def main(argv: list[str]) -> int:
    """Parse the command line and encode."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    outs = [arg.removeprefix("out=") for arg in argv if arg.startswith("out=")]
    try:
        if len(outs) != 1:
            raise ValueError(f"out={outs}: must be given once. Add out=FOLDER.")
        overrides = [arg for arg in argv if not arg.startswith("out=")]
        run = compose_run(["horizon.steps=1", *overrides])
        manifest = encode_dataset(run, Path(outs[0]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is encoded is kept, the same command goes on", file=sys.stderr)
        return 130
    statistics = manifest["latent_statistics"]
    print("latent mean per channel:", " ".join(f"{v:+.4f}" for v in statistics["mean"]))
    print("latent std  per channel:", " ".join(f"{v:.4f}" for v in statistics["std"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
