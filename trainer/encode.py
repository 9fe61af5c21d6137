"""Encode a data set of clips into latents and caption states, once for many runs.

usage: python -m trainer.encode out=FOLDER [data.root=FOLDER] [key=value ...]

example:
  python -m trainer.encode data.root=datasets/demo/video out=datasets/demo/latents
  python -m trainer.encode codec=vae_tiny data.root=datasets/demo/video out=datasets/demo/latents

The codec and the text encoder are those of the composed run (codec=..., text.kind=...). The result
carries a digest of both and of its source; an equal result is kept, a stale one is made anew.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from data.batch import Sample
from data.loader import SampleReader, index_digest
from data.progress import Progress
from data.sample import SampleInfo
from data.shards import (
    LOCATIONS,
    ShardWriter,
    read_index,
    read_manifest,
    read_truth,
    write_manifest,
)
from models.text import build_text_encoder
from trainer.codec import load_codec
from trainer.codec_files import fingerprint
from trainer.config import RunConfig, compose_run
from trainer.latent_statistics import ChannelStatistics

log = logging.getLogger("trainer")
_BATCH = 64  # samples read and captioned together
_SHARD_BYTES = 64_000_000
FORMAT = 2
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class EncodedSample:
    """A sample's latent (C, f, h, w), its two captions (L, D), and what a simulator knew."""

    info: SampleInfo
    latent: Tensor
    caption: Tensor
    short_caption: Tensor
    truth: dict[str, Any] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Source frames, height and width."""
        return self.info.num_frames, self.info.height, self.info.width


def encode_dataset(run: RunConfig, out: Path) -> dict[str, Any]:
    """Encode every split of ``run.data.root`` into ``out``; return its manifest."""
    source = Path(run.data.root)
    manifest = read_manifest(source)
    splits = sorted(p.parent.name for p in source.glob("*/index.jsonl"))
    if not splits:
        raise ValueError(f"data.root={source}: holds no split. Run python -m data.demo first.")
    infos = {split: read_index(source, split) for split in splits}
    digest = _digest(run, infos)
    if (out / "manifest.json").exists() and read_manifest(out).get("encoded") == digest:
        return read_manifest(out)
    shutil.rmtree(out, ignore_errors=True)
    codec, text = load_codec(run.codec), build_text_encoder(run.text)
    statistics = ChannelStatistics()
    total = sum(len(members) for members in infos.values())
    report: dict[str, Any] = {"dropped": [], "decoders": {}}
    done = 0

    def encode(split: str, samples: list[Sample]) -> list[EncodedSample]:
        """Encode a batch; runs in threads, torch computes without the interpreter lock."""
        infos = [s.info for s in samples]
        captions = text.encode([info.caption for info in infos])
        shorts = text.encode([info.short_caption for info in infos])
        latents = [codec.encode(s.frames) for s in samples if s.frames is not None]
        truths = [read_truth(source, split, info) for info in infos]
        return list(map(EncodedSample, infos, latents, captions, shorts, truths))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one batch a core: more than two threads in one batch
    try:
        with Progress("encode", Console()) as progress:
            for split in splits:
                with ShardWriter(out, split, _SHARD_BYTES) as writer:
                    batches = _read(run, split, infos[split], report)
                    for encoded in _in_threads(partial(encode, split), batches):
                        for sample in encoded:
                            if split == run.data.train_split:
                                statistics.add(sample.latent, codec.valid(*sample.shape))
                            _write(writer, sample)
                        done += len(encoded)
                        progress.update(done, total, split)
    finally:
        torch.set_num_threads(threads)
    kept = {k: v for k, v in manifest.items() if k not in ("shards",)}
    extra = {"encoded": digest, "latent_statistics": statistics.summary(), "reading": report}
    extra |= {"codec": fingerprint(run.codec), "text": asdict(run.text)}
    write_manifest(out, kept | extra)
    return read_manifest(out)


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
    run: RunConfig, split: str, infos: list[SampleInfo], report: dict[str, Any]
) -> Iterator[list[Sample]]:
    """Yield batches of decoded samples; unreadable ones are reported, not encoded."""
    reader = SampleReader(run.data, split, infos)
    try:
        for start in range(0, len(infos), _BATCH):
            found = reader.read([(info, 0) for info in infos[start : start + _BATCH]])
            samples = [sample for sample in found if isinstance(sample, Sample)]
            for sample in found:
                if isinstance(sample, Sample):
                    counts = report["decoders"]
                    counts[sample.decoder] = counts.get(sample.decoder, 0) + 1
                else:
                    log.warning("dropped %s", sample)
                    report["dropped"].append([sample.key, sample.reason])
            yield samples
    finally:
        reader.close()


def _write(writer: ShardWriter, sample: EncodedSample) -> None:
    """Write one latent sample; fp16 keeps 11 bits of values near 1, far below pixel noise."""
    tensors = {"latent": sample.latent, "caption": sample.caption}
    if sample.info.short_caption:
        tensors["short_caption"] = sample.short_caption
    payload = save({name: value.half().contiguous() for name, value in tensors.items()})
    computed = ("sha256", *LOCATIONS)
    meta = {k: v for k, v in sample.info.to_json().items() if k not in computed}
    lengths = {f"{n}_tokens": len(v) for n, v in tensors.items() if n != "latent"}
    writer.write(meta | {"media": "latent"} | lengths, payload, "safetensors", sample.truth)


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
    statistics = manifest["latent_statistics"]
    print("latent mean per channel:", " ".join(f"{v:+.4f}" for v in statistics["mean"]))
    print("latent std  per channel:", " ".join(f"{v:.4f}" for v in statistics["std"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
