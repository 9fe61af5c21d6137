"""Encode a data set of clips into latents and caption states, once for many runs.

usage: kinescale encode out=FOLDER [data.root=FOLDER] [share=I/N] [key=value ...]

example:
  kinescale encode data.root=datasets/demo/video out=datasets/demo/latents
  kinescale encode codec=vae_tiny data.root=datasets/demo/video out=datasets/demo/latents

The codec and the text encoder are those of the composed run (codec=..., text.kind=...). The result
carries a digest of both and of its source; an equal result is kept, a stale one is made anew. An
interrupted command goes on where it was: finished batches wait in OUT/.parts until all are there.

A large data set is encoded by N tasks at once, on a file system they share: share=I/N (from 0) does
every N-th batch, and the command without it, when they are through, the rest and the shards:

  torchrun --standalone --nproc_per_node 8 -m trainer.encode ...    # the GPUs of a node
  sbatch --array=0-7 --wrap='kinescale encode ... share=$SLURM_ARRAY_TASK_ID/8'
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from data.command_line import unquoted
from data.dataset.sample import SampleInfo
from data.dataset.shards import (
    MANIFEST_NAME,
    read_index,
    read_manifest,
    write_manifest,
)
from data.decode.pool import DecodeError
from data.files import local_folder
from data.loading.batch import Sample
from data.loading.loader import SampleReader, index_digest
from data.notices import doing
from data.shell import command
from data.show.progress import Progress
from data.words import counted
from models.text import CaptionMemory, build_text_encoder
from trainer.codec.build import load_codec
from trainer.codec.files import fingerprint
from trainer.config import RunConfig, compose_run
from trainer.diffusion.collate import CAPTIONS
from trainer.encode.batches import PARTS, Batch, assemble, encode_batch
from trainer.parallel.mesh import Mesh, alone, stop_mesh
from trainer.parallel.workers import join_workers, own_share

log = logging.getLogger("trainer")
_BATCH = 64  # samples read and captioned together
FORMAT = 2
T = TypeVar("T")
R = TypeVar("R")


def encode_dataset(
    run: RunConfig, out: Path, share: tuple[int, int] | None = None, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Encode every split of ``run.data.root`` into ``out``; return its manifest.

    share: (i, n) encodes every n-th batch from the i-th on, writes no shards and returns {}. Ranks
    of a mesh share the batches; the main one writes the shards, the others return {}.
    Raises ValueError without a source, or if ``out`` holds something else.
    """
    local_folder("out", out)
    source = Path(run.data.root)
    manifest = read_manifest(source)
    splits = [path.parent.name for path in _indexes(source)]
    if not splits:
        raise ValueError(f"data.root={source}: holds no split. Run kinescale demo-data first.")
    infos = {split: read_index(source, split) for split in splits}
    if any(info.media == "latent" for members in infos.values() for info in members):
        raise ValueError(
            f"data.root={source}: holds latents but must hold clips. Name their source."
        )
    digest = _digest(run, infos)
    if (out / MANIFEST_NAME).exists() and read_manifest(out).get("encoded") == digest:
        return read_manifest(out)
    batches, mesh = _batches(infos, _prepare(out, digest)), mesh or alone()
    if share is not None:
        _encode_missing(run, own_share(batches[share[0] :: share[1]], mesh), mesh)
        return {}
    if mesh.world > 1:
        _encode_missing(run, own_share(batches, mesh), mesh)
        mesh.barrier()
        if not mesh.is_main:
            return {}
    _encode_missing(run, batches, mesh)
    with doing(f"writing the shards of {out}"):
        found = assemble(out, batches, run.data.train_split)
    kept = {k: v for k, v in manifest.items() if k not in ("shards",)}
    extra = {"encoded": digest, "codec": fingerprint(run.codec), "text": asdict(run.text)}
    write_manifest(out, kept | extra | found)
    shutil.rmtree(batches[0].stem.parent)
    with suppress(OSError):  # a task with other settings may be at work there
        (out / PARTS).rmdir()
    return read_manifest(out)


def _prepare(out: Path, digest: str) -> Path:
    """Return the folder of finished batches of this source and codec.

    Those of others stay: a task of theirs may be at work.
    """
    ours = (out / PARTS).exists() or "encoded" in _manifest_of(out)
    if out.exists() and any(out.iterdir()) and not ours:
        raise ValueError(
            f"out={out}: holds files that are no encoded data set, which this would replace. "
            "Choose another folder, or delete it."
        )
    parts = out / PARTS / f"{digest[:16]}-{_BATCH}"
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


def _encode_missing(run: RunConfig, batches: list[Batch], mesh: Mesh) -> None:
    """Encode the batches that are not there yet, in threads; torch computes without the GIL."""
    missing = [batch for batch in batches if not batch.is_whole()]
    total = sum(len(batch.infos) for batch in batches)
    done = total - sum(len(batch.infos) for batch in missing)
    console = Console()
    if done:
        console.print(f"encode: {done} of {total} samples are there already", highlight=False)
    with doing("loading codec and text encoder"):
        codec = load_codec(run.codec, mesh.device)
        text = CaptionMemory(build_text_encoder(run.text), CAPTIONS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one batch a core: more than two threads in one batch
    try:
        with Progress("encode", console) as progress:
            progress.update(done, total, "")
            work = partial(encode_batch, Path(run.data.root), codec, text)
            for batch in _in_threads(work, _read(run, missing)):
                done += len(batch.infos)
                progress.update(done, total, batch.split)
    finally:
        torch.set_num_threads(threads)


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


def samples_in(out: Path) -> dict[str, int]:
    """Return the samples of each split of an encoded data set."""
    return {p.parent.name: len(read_index(out, p.parent.name)) for p in _indexes(out)}


def _indexes(root: Path) -> list[Path]:
    return sorted(root.glob("*/index.jsonl"))


def _share(text: str) -> tuple[int, int]:
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"share={text}: must be I/N with I from 0 to N - 1. Use for example 0/8.")
    return int(first), int(count)


@command(__doc__, kept="what is encoded is kept, the same command goes on")
def main(argv: list[str]) -> int:
    """Parse the command line and encode."""
    outs = [unquoted(arg.removeprefix("out=")) for arg in argv if arg.startswith("out=")]
    shares = [arg.removeprefix("share=") for arg in argv if arg.startswith("share=")]
    if len(outs) != 1:
        raise ValueError(f"out={outs}: must be given once. Add out=FOLDER.")
    share = _share(shares[-1]) if shares else None
    overrides = [arg for arg in argv if not arg.startswith(("out=", "share="))]
    run = compose_run(["horizon.steps=1", *overrides])
    mesh = join_workers(run.parallel.device)
    manifest = encode_dataset(run, Path(outs[0]), share, mesh)
    if mesh.world > 1:
        stop_mesh(mesh)
    if not manifest and share is None:  # not the main worker
        return 0
    if not manifest:
        print(f"share {shares[-1]} is there; the command without share= puts all together")
        return 0
    statistics = manifest["latent_statistics"]
    print("latent mean per channel:", " ".join(f"{v:+.4f}" for v in statistics["mean"]))
    print("latent std  per channel:", " ".join(f"{v:.4f}" for v in statistics["std"]))
    said = manifest.get("captions_encoded", {"cut": 0})
    if said["cut"]:
        print(
            f"captions: of {said['cut']:,} of {said['written']:,} only the first "
            f"text.max_tokens={run.text.max_tokens} tokens were kept"
        )
    counts = (f"{name} {counted(n, 'sample')}" for name, n in samples_in(Path(outs[0])).items())
    print(f"latents: {outs[0]} ({', '.join(counts)})")
    return 0
