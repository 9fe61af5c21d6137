"""Write dense captions for every clip of a data set, by a captioner trained here or by an endpoint.

usage: kinescale caption root=DATASET out=DATASET2 weights=FOLDER [key=value ...]
       kinescale caption root=DATASET out=DATASET2 endpoint=URL model=NAME [key=value ...]

examples:
  kinescale caption root=datasets/demo/video out=datasets/demo/captioned \\
      weights=models/weights/captioner_tiny
  OPENAI_API_KEY=... kinescale caption root=datasets/clips out=datasets/captioned \\
      endpoint=https://api.openai.com/v1 model=gpt-4o-mini price_in=0.15 price_out=0.6 max_cost=5

Each caption is kept in OUT/captions.jsonl as soon as it is written: the same command continues
where it was stopped, and asks again for what failed. When all are there, OUT becomes the data set
with both captions: an index of its own over the shards of DATASET, which are linked. Text is
written, no payload. Its manifest tells who wrote them. docs/captions.md has more.

Weights compute on device= (auto), in precision= (fp32). Several processes of a machine share the
clips and write the data set that one writes:
  torchrun --standalone --nproc_per_node 8 -m trainer.captioner.caption root=... out=... weights=...

Many machines share the work where they share the folders: engine=ray address=HOST:PORT,
engine=slurm tasks=8 cluster=SITE, or share=I/N and then the command without it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from data.command_line import parse
from data.config import DataConfig, Engine
from data.dataset.part import attempt_name
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index
from data.derive.recaption import (
    CaptionKey,
    NewCaption,
    Policy,
    check_target,
    list_splits,
    recaption,
)
from data.engine.engines import Work, carry_out
from data.engine.settings import share_of
from data.shell import command
from data.show.progress import Progress
from trainer.captioner.job import CaptionJob, OnError
from trainer.captioner.journal import Entry, Journal
from trainer.chat.endpoint import Endpoint, EndpointConfig
from trainer.layout.config import Precision

if TYPE_CHECKING:
    from trainer.parallel.mesh import Mesh

FAILED = 1  # exit status where clips are left without a caption
_SHOWN = 5
PART_CLIPS = 256  # that a node of a Ray cluster captions at once, to a whole batch


class Writer(Protocol):
    """Who writes captions: ``by`` is a digest of all that they depend on beside the clip."""

    by: str

    def run(self, data: DataConfig, split: str, infos: list[SampleInfo], add: Any, /) -> None:
        """Caption clips of one split and hand every entry to ``add``."""


def caption_dataset(job: CaptionJob, console: Console, mesh: "Mesh") -> dict[str, Any]:
    """Caption what the journals lack, then write the data set; return a summary.

    With a ``share`` its clips are captioned and {} is returned. Workers of a mesh share the clips,
    or a ``share`` of them; the main one writes the data set, the others return {}.
    The summary's ``failed`` lists the entries without caption; the data set was written unless
    there are some and ``on_error`` is ``stop``. Raises ValueError on settings that cannot work.
    """
    job.check_job()
    root, out = Path(job.root), Path(job.out)
    splits = list_splits(root)
    infos = {split: read_index(root, split) for split in splits}
    check_target(root, out)
    policy = Policy(job.existing, job.short_words)
    policy.check()
    share = own_of(job.share, mesh)
    with Journal(out, "{}-of-{}".format(*share) if share[1] > 1 else "") as journal:
        writer, provenance = open_writer(job, journal, str(mesh.device))
        _write(job, writer, journal, _parts(job, infos, share), console, str(mesh.device))
        if mesh.world > 1:
            mesh.barrier()
        if job.share or not mesh.is_main:
            return {}
        journal.entries = journal.read_all()
        answers = journal.answers(writer.by)
        tokens = journal.tokens(writer.by)
        failures = {e.name: e for e in journal.entries if e.by == writer.by and e.error}
    wanted = {(s, i.key, i.sha256, writer.by) for s, members in infos.items() for i in members}
    failed = [e for name, e in sorted(failures.items()) if name in wanted and name not in answers]
    summary: dict[str, Any] = {"failed": failed, "written": len(wanted & answers.keys())}
    summary |= {"tokens": tokens, "cost": job.cost(*tokens), "manifest": None}
    if failed and job.on_error is OnError.stop:
        return summary
    captions = {name[:2]: _caption_of(e) for name, e in answers.items() if name in wanted}
    provenance |= {
        "journal": "captions*.jsonl",
        "failed": [[e.split, e.key, e.error] for e in failed],
    }
    provenance |= {"by": writer.by, "tokens_in": tokens[0], "tokens_out": tokens[1]}
    provenance |= {"doubtful": doubtful(provenance, captions)}
    with Progress("write", console) as progress:
        summary["manifest"] = recaption(root, out, captions, policy, provenance, progress.update)
    return summary


def open_writer(job: CaptionJob, journal: Journal, device: str) -> tuple[Writer, dict[str, Any]]:
    """Return who writes, and what the manifest says of it; what was paid before counts."""
    if job.endpoint:
        from trainer.captioner.remote import RemoteWriter

        endpoint = Endpoint(_endpoint_of(job))
        remote = RemoteWriter(endpoint, job.frames, job.side)
        endpoint.count(*journal.tokens(remote.by))
        told: dict[str, Any] = {"kind": "endpoint", "endpoint": job.endpoint, "model": job.model}
        told |= {"prompt_sha256": remote.prompt_sha256, "frames": job.frames, "side": job.side}
        return remote, told | {"price_in": job.price_in, "price_out": job.price_out}
    import torch

    from trainer.captioner.local import LocalWriter
    from trainer.captioner.weights import load_captioner

    dtype = torch.bfloat16 if job.precision is Precision.bf16 else torch.float32
    trained = load_captioner(Path(job.weights), torch.device(device), dtype)
    local = LocalWriter(trained, job.temperature, job.top_p, job.seed, job.batch)
    told = {"kind": "weights", "weights_sha256": trained.sha256, "about": trained.about}
    told |= {"precision": job.precision.value} if job.precision is not Precision.fp32 else {}
    return local, told | {k: getattr(job, k) for k in ("temperature", "top_p", "seed")}


def _endpoint_of(job: CaptionJob) -> EndpointConfig:
    names = EndpointConfig.__dataclass_fields__
    return EndpointConfig(**{k: v for k, v in asdict(job).items() if k in names})


@dataclass(frozen=True)
class CaptionPart:
    """Clips of one split that are captioned by one process."""

    job: CaptionJob
    split: str
    infos: list[SampleInfo]


def own_of(share: str, mesh: "Mesh") -> tuple[int, int]:
    """Return this worker's share (i, n) of all clips, or of the share I/N of them."""
    first, count = share_of(share) or (0, 1)
    return first * mesh.world + mesh.rank, count * mesh.world


def _parts(
    job: CaptionJob, infos: dict[str, list[SampleInfo]], share: tuple[int, int]
) -> list[CaptionPart]:
    """Return the clips of a share (i, n): every n-th batch of a split from the i-th on.

    Batches are those of one process, so that captions are, too: rounding depends on what is read
    beside a clip.
    """
    (first, count), size = share, job.batch
    parts = []
    for split, members in infos.items():
        batches = [members[start : start + size] for start in range(0, len(members), size)]
        own, most = batches[first::count], max(1, len(batches))
        if job.engine is Engine.ray:
            most = max(1, PART_CLIPS // size)
        parts += [
            CaptionPart(job, split, [info for batch in own[start : start + most] for info in batch])
            for start in range(0, len(own), most)
        ]
    return parts


def _write(
    job: CaptionJob,
    writer: Writer,
    journal: Journal,
    parts: list[CaptionPart],
    console: Console,
    device: str,
) -> None:
    """Caption every clip that no journal has an answer for, here or by ``job.engine``."""
    total = sum(len(part.infos) for part in parts)
    parts = _missing(parts, journal, writer.by)
    done = total - sum(len(part.infos) for part in parts)
    with Progress("caption", console) as progress:
        progress.update(done, total, "")
        if job.engine is Engine.ray:
            folders = Path(job.root), Path(job.out)
            work = Work(partial(caption_parts, device=device), folders, int(device != "cpu"))
            found = carry_out(work, parts, job, lambda: progress.update(done, total, ""))
            for clips, _ in found:
                done += int(clips)
            progress.update(done, total, "")
            return
        for part in parts:

            def add(entry: Entry, split: str = part.split) -> None:
                nonlocal done
                journal.add(entry)
                done += 1
                progress.update(done, total, split)

            writer.run(_data_of(job), part.split, part.infos, add)


def _missing(parts: Sequence[CaptionPart], journal: Journal, by: str) -> list[CaptionPart]:
    """Return parts without the clips that ``by`` has captioned, and without those left empty."""
    known = journal.answers(by)
    kept = (
        replace(
            part, infos=[i for i in part.infos if (part.split, i.key, i.sha256, by) not in known]
        )
        for part in parts
    )
    return [part for part in kept if part.infos]


def caption_parts(
    parts: Sequence[CaptionPart], num_workers: int, on_wait: Callable[[], None], device: str
) -> Iterator[tuple[float, int]]:
    """Caption parts on a node, into a journal that nobody else writes; yield the clips of each."""
    job = parts[0].job
    with Journal(Path(job.out), attempt_name()) as journal:
        writer, _ = open_writer(job, journal, device)
        for part in parts:
            missing = _missing([part], journal, writer.by)
            for left in missing:
                writer.run(_data_of(job), left.split, left.infos, journal.add)
            on_wait()
            yield len(part.infos), sum(len(left.infos) for left in missing)


def _data_of(job: CaptionJob) -> DataConfig:
    return DataConfig(root=job.root, decode_workers=job.decode_workers)


def _caption_of(entry: Entry) -> NewCaption:
    scores = {} if entry.logprob is None else {"caption_logprob": round(entry.logprob, 4)}
    return NewCaption(entry.caption, entry.short_caption, scores)


def doubtful(provenance: dict[str, Any], captions: dict[CaptionKey, NewCaption]) -> dict[str, Any]:
    """Count, split by split, the likeliest captions of which the captioner is unusually unsure."""
    limit = provenance.get("about", {}).get("doubtful_logprob")
    if not isinstance(limit, int | float) or provenance.get("temperature"):
        return {}
    counts: dict[str, list[int]] = {}
    for (split, _), new in captions.items():
        count = counts.setdefault(split, [0, 0])
        count[0] += new.scores.get("caption_logprob", 0.0) < limit
        count[1] += 1
    return {"below": limit, "captions": {split: counts[split] for split in sorted(counts)}}


def report(job: CaptionJob, summary: dict[str, Any], console: Console) -> int:
    """Print what became of the clips; return the exit status."""
    failed: list[Entry] = summary["failed"]

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"captions: {summary['written']} written, {len(failed)} failed")
    if job.endpoint:
        tokens_in, tokens_out = summary["tokens"]
        say(f"tokens: {tokens_in} in, {tokens_out} out; cost {summary['cost']:.4f}")
    for entry in failed[:_SHOWN]:
        say(f"  {entry.split}/{entry.key}: {entry.error[:200]}")
    if len(failed) > _SHOWN:
        say(f"  ... all of them are in {Path(job.out) / 'captions.jsonl'}")
    if summary["manifest"] is None:
        say("no data set was written. Run the same command to try again, or add on_error=keep.")
        return FAILED
    for split, (low, count) in (
        summary["manifest"]["recaptioned"]["doubtful"].get("captions", {}).items()
    ):
        say(
            f"{split}: the captioner is unsure of {low} of {count} captions (2 % on held-out clips "
            "of the kind it was trained on)" + ("; do not trust these" if low > count / 10 else "")
        )
    say(f"dataset: {job.out}")
    return 0


@command(
    __doc__,
    keys=CaptionJob,
    kept="what is written is kept; run the same command again",
)
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    console = Console()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    job = parse(CaptionJob, arguments)
    job.check_job()
    from trainer.parallel.mesh import stop_mesh
    from trainer.parallel.workers import join_workers

    mesh = join_workers(job.device if job.weights else "cpu")
    summary = caption_dataset(job, console, mesh)
    if mesh.world > 1:
        stop_mesh(mesh)
    if not mesh.is_main:
        return 0
    if not summary:
        said = f"share {job.share} is there; the command without share= puts all together"
        console.print(said, highlight=False)
        return 0
    return report(job, summary, console)


if __name__ == "__main__":
    main.run()
