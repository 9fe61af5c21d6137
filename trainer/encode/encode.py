"""Encode a data set of clips into latents and caption states, once for many runs.

usage: kinescale encode out=FOLDER [data.root=FOLDER] [captions=TABLE] [key=value ...]

example:
  kinescale encode data.root=datasets/demo/video out=datasets/demo/latents
  kinescale encode codec=vae_tiny data.root=datasets/demo/video out=datasets/demo/latents

The codec and the text encoder are those of the composed run (codec=..., text.kind=...). The result
is made of parts, each with shards of its own: parts that are there and fresh are kept, so that an
interrupted command goes on where it was, and clips that were added are encoded alone.

A large data set is encoded by the nodes of a Ray cluster, or by N tasks at once, on a file system
they share: share=I/N (from 0) does every N-th part, and the command without it, when they are
through, the rest and the index:

  torchrun --standalone --nproc_per_node 8 -m trainer.encode ...    # the GPUs of a node
  kinescale encode ... engine=ray address=HOST:PORT
  kinescale encode ... engine=slurm tasks=8 cluster=SITE
"""

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from data.command_line import parse, unquoted
from data.dataset.part import PartName, find_pieces, index_pieces, is_whole, read_piece
from data.dataset.sample import SampleInfo
from data.dataset.shards import MANIFEST_NAME, read_index, read_manifest
from data.decode.pool import DecodeError
from data.derive.join import join_table
from data.engine.engines import Work, carry_out
from data.engine.settings import check_builders, share_of
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
from trainer.codec.statistics import ChannelStatistics
from trainer.config import RunConfig, compose_run
from trainer.diffusion.collate import CAPTIONS
from trainer.encode.batches import (
    BATCHES,
    Batch,
    Part,
    encode_batch,
    plan_parts,
    seal,
)
from trainer.encode.job import EncodeJob
from trainer.parallel.mesh import Mesh, alone, stop_mesh
from trainer.parallel.workers import join_workers, own_share

log = logging.getLogger("trainer")
FORMAT = 2
# What a source's manifest says of its own files alone.
OF_SOURCE = ("shards", "indexes", "parts", "left_out", "staying", "digest")
T = TypeVar("T")
R = TypeVar("R")


def encode_dataset(
    run: RunConfig,
    out: Path,
    share: tuple[int, int] | None = None,
    mesh: Mesh | None = None,
    job: EncodeJob | None = None,
) -> dict[str, Any]:
    """Encode every split of ``run.data.root`` into ``out``; return its manifest.

    share: (i, n) encodes every n-th part from the i-th on, writes no index and returns {}. Ranks
    of a mesh share the parts; the main one writes the index, the others return {}. job: who
    encodes, and a table of captions.
    Raises ValueError without a source, or if ``out`` holds something else.
    """
    job = job or EncodeJob()
    local_folder("out", out)
    out, source = out.absolute(), Path(run.data.root)
    manifest = read_manifest(source)
    splits = [path.parent.name for path in _indexes(source)]
    if not splits:
        raise ValueError(f"data.root={source}: holds no split. Run kinescale demo-data first.")
    infos = {split: read_index(source, split) for split in splits}
    if any(info.media == "latent" for members in infos.values() for info in members):
        raise ValueError(
            f"data.root={source}: holds latents but must hold clips. Name their source."
        )
    told: dict[str, Any] = {}
    if job.captions:
        infos, counts = join_table(infos, Path(job.captions))
        told = {"captions": {"table": job.captions, **counts}}
    digest, joined = _digest(run, infos), _joined_digest(infos)
    before = _manifest_of(out)
    if _is_finished(out, before, digest, joined):
        return before
    _prepare(out, before)
    parts, mesh = plan_parts(run, out, infos, _sha256(_about(run))), mesh or alone()
    chosen = parts[share[0] :: share[1]] if share is not None else parts
    known = {piece.path for piece in find_pieces(out, before)[0]}
    if mesh.world > 1 or share is not None:
        _encode_missing(own_share(chosen, mesh), mesh, job, known)
    if share is not None:
        return {}
    if mesh.world > 1:
        mesh.barrier()
        if not mesh.is_main:
            return {}
    _encode_missing(parts, mesh, job, known)
    with doing(f"writing the index of {out}"):
        found, latents = assemble(parts, infos, run.data.train_split)
    kept = {k: v for k, v in manifest.items() if k not in OF_SOURCE}
    extra: dict[str, Any] = {"encoded": digest, "joined": joined, **told}
    extra |= {"codec": fingerprint(run.codec), "text": asdict(run.text)}
    pieces = [piece for part in parts if (piece := read_piece(part.piece, head_only=True))]
    index_pieces(out, pieces, latents, kept | extra | found, sole=False)
    with suppress(OSError):  # a task with other settings may be at work there
        (out / BATCHES).rmdir()
    return read_manifest(out)


def _prepare(out: Path, before: dict[str, Any]) -> None:
    """Make the folder of finished batches. Raises ValueError where other files would be replaced.

    Parts of other settings stay: a task of theirs may be at work.
    """
    ours = (out / BATCHES).exists() or "encoded" in before
    if out.exists() and any(out.iterdir()) and not ours:
        raise ValueError(
            f"out={out}: holds files that are no encoded data set, which this would replace. "
            "Choose another folder, or delete it."
        )
    (out / BATCHES).mkdir(parents=True, exist_ok=True)


def _manifest_of(root: Path) -> dict[str, Any]:
    return read_manifest(root) if (root / MANIFEST_NAME).exists() else {}


def _is_finished(out: Path, manifest: dict[str, Any], digest: str, joined: str) -> bool:
    """Say whether a data set is fresh and whole; those of before parts were joined to nothing."""
    if manifest.get("encoded") != digest or manifest.get("joined", joined) != joined:
        return False
    return not find_pieces(out, manifest)[1]


def _encode_missing(parts: list[Part], mesh: Mesh, job: EncodeJob, known: set[Path]) -> None:
    """Encode the parts that are not there yet; ``known`` pieces are whole."""
    missing = [part for part in parts if part.piece not in known and not part.is_whole()]
    total = sum(len(part.infos) for part in parts)
    done = total - sum(len(part.infos) for part in missing)
    console = Console()
    if done:
        console.print(f"encode: {done} of {total} samples are there already", highlight=False)
    with Progress("encode", console) as progress:

        def report() -> None:
            progress.update(done, total, "")

        report()
        if not missing:
            return
        on_gpu = mesh.device.type == "cuda"
        folders = Path(missing[0].run.data.root), missing[0].out
        work = Work(partial(encode_parts, device=str(mesh.device)), folders, int(on_gpu))
        for samples, already in carry_out(work, missing, job, report):
            if already:
                console.print(f"encode: {already} of {total} samples are there already, in parts")
            done += int(samples)
            report()


def encode_parts(
    parts: Sequence[Part], num_workers: int, on_wait: Callable[[], None], device: str = "cpu"
) -> Iterator[tuple[float, int]]:
    """Encode parts in threads, one a core or ``num_workers``; torch computes without the GIL.

    Yields the samples of each batch, and of those how many were there already.
    """
    run = parts[0].run
    waiting: dict[PartName, int] = {}  # batches that a part lacks
    part_of: dict[Path, Part] = {}
    missing: list[Batch] = []
    there = 0
    for part in parts:
        lacking = [batch for batch in part.batches if not batch.is_whole()]
        there += len(part.infos) - sum(len(batch.infos) for batch in lacking)
        part_of |= {batch.stem: part for batch in lacking}
        waiting[part.name] = len(lacking)
        missing += lacking
        if not lacking:
            seal(part)
    if there:
        yield there, there
    if not missing:
        return
    with doing("loading codec and text encoder"):
        codec = load_codec(run.codec, torch.device(device))
        text = CaptionMemory(build_text_encoder(run.text, torch.device(device)), CAPTIONS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one batch a core: more than two threads in one batch
    try:
        work = partial(encode_batch, Path(run.data.root), codec, text)
        workers = num_workers or len(os.sched_getaffinity(0))
        for batch in _in_threads(work, _read(run, missing), workers):
            on_wait()
            part = part_of[batch.stem]
            waiting[part.name] -= 1
            if not waiting[part.name]:
                seal(part)
            yield len(batch.infos), 0
    finally:
        torch.set_num_threads(threads)


def assemble(
    parts: Sequence[Part], infos: dict[str, list[SampleInfo]], train_split: str
) -> tuple[dict[str, Any], dict[str, list[SampleInfo]]]:
    """Return what finished parts tell, and the samples of each split.

    What the source's index says now of a sample goes before what it said when it was encoded:
    scores are joined by key. Raises ValueError where a part was damaged meanwhile.
    """
    statistics, decoders, dropped = ChannelStatistics(), Counter[str](), []
    num_captions, num_cut = 0, 0
    latents: dict[str, list[SampleInfo]] = {}
    for part in parts:
        piece = read_piece(part.piece)
        if piece is None or not is_whole(piece, by_digest=False):
            raise ValueError(f"part={part.piece}: was damaged. Run the same command again.")
        for record in piece.said["batches"]:
            decoders.update(record["decoders"])
            dropped += record["dropped"]
            num_cut += record["captions_cut"]
            if piece.split == train_split and record["decoders"]:
                statistics.merge(record["statistics"])
        said = {info.key: info for info in part.infos}
        for info in piece.infos:
            num_captions += bool(info.caption)
            now = said[info.key]
            joined = replace(info, scores=now.scores, original=now.original)
            latents.setdefault(piece.split, []).append(joined)
    return {
        "latent_statistics": statistics.summary(),
        "reading": {"dropped": dropped, "decoders": dict(decoders)},
        "captions_encoded": {"written": num_captions, "cut": num_cut},
    }, latents


def _in_threads(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Map in order in threads, reading at most one item ahead of them."""
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


def _about(run: RunConfig) -> dict[str, Any]:
    return {"format": FORMAT, "codec": fingerprint(run.codec), "text": asdict(run.text)}


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _digest(run: RunConfig, infos: dict[str, list[SampleInfo]]) -> str:
    """Return a digest of all that decides latents and caption states."""
    source = {split: index_digest(members) for split, members in infos.items()}
    captions = {
        split: [[i.caption, i.short_caption] for i in members] for split, members in infos.items()
    }
    return _sha256({**_about(run), "source": source, "captions": captions})


def _joined_digest(infos: dict[str, list[SampleInfo]]) -> str:
    """Return a digest of what is joined to latents that are there."""
    return _sha256({s: [[i.scores, i.original] for i in members] for s, members in infos.items()})


def samples_in(out: Path) -> dict[str, int]:
    """Return the samples of each split of an encoded data set."""
    return {p.parent.name: len(read_index(out, p.parent.name)) for p in _indexes(out)}


def _indexes(root: Path) -> list[Path]:
    return sorted(root.glob("*/index.jsonl"))


@command(__doc__, kept="what is encoded is kept, the same command goes on")
def main(argv: list[str]) -> int:
    """Parse the command line and encode."""
    own = [arg for arg in argv if arg.partition("=")[0] in EncodeJob.__dataclass_fields__]
    job = parse(EncodeJob, own)
    outs = [unquoted(arg.removeprefix("out=")) for arg in own if arg.startswith("out=")]
    if len(outs) != 1:
        raise ValueError(f"out={outs}: must be given once. Add out=FOLDER.")
    check_builders(job)
    run = compose_run(["horizon.steps=1", *(arg for arg in argv if arg not in own)])
    mesh = join_workers(run.parallel.device)
    share = share_of(job.share)
    manifest = encode_dataset(run, Path(job.out), share, mesh, job)
    if mesh.world > 1:
        stop_mesh(mesh)
    if not manifest and share is None:  # not the main worker
        return 0
    if not manifest:
        print(f"share {job.share} is there; the command without share= puts all together")
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
    counts = (f"{name} {counted(n, 'sample')}" for name, n in samples_in(Path(job.out)).items())
    print(f"latents: {job.out} ({', '.join(counts)})")
    return 0
