"""The compute ladder: the same prompts and the same noise through the best model of each budget."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data.dataset.shards import SampleInfo, read_index
from data.files import write_json
from launch.local.process import Job
from sweeps.study.config import SampledStudy
from sweeps.study.runner import Work
from trainer.config import RunConfig

# One prompt of each kind, in this order, then further ones of the first kind.
_KINDS: tuple[tuple[str, Callable[[SampleInfo], bool]], ...] = (
    ("rooms landscape", lambda i: i.source.startswith("rooms") and i.width > i.height),
    ("doom", lambda i: i.source.startswith("doom")),
    ("rooms portrait", lambda i: i.source.startswith("rooms") and i.width < i.height),
    ("rooms square", lambda i: i.source.startswith("rooms") and i.width == i.height),
)


def choose_prompts(root: str, split: str, count: int) -> list[SampleInfo]:
    """Choose long held-out clips of different kinds, the same for every study on this data."""
    clips = [i for i in read_index(root, split) if i.num_frames > 1]
    clips.sort(key=lambda i: (-i.num_frames, hashlib.sha256(i.key.encode()).hexdigest()))
    chosen: list[SampleInfo] = []
    for _, fits in _KINDS:
        found = [clip for clip in clips if fits(clip) and clip not in chosen]
        chosen += found[:1]
    chosen += [clip for clip in clips if clip not in chosen]
    return chosen[:count]


def draw_samples(
    study: SampledStudy, best: Sequence[dict[str, Any]], run: RunConfig
) -> Iterator[Work]:
    """Yield the work that draws the compute ladder, then write samples/ladder.json.

    best: a row of runs.csv for each budget, in rising order. run: says where the prompts are.
    """
    if not best or not study.samples.prompts:
        return
    jobs, ladder = plan_samples(study, best, run.data.root, run.validation.splits[0])
    yield Work("samples", jobs=jobs)
    write_json(study.folder / "samples" / "ladder.json", ladder)


def plan_samples(
    study: SampledStudy, best: Sequence[dict[str, Any]], root: str, split: str
) -> tuple[list[Job], dict[str, Any]]:
    """Return the jobs that draw the samples, and ladder.json for the report.

    best: a row of runs.csv for each budget, in rising order.
    """
    folder = study.folder / "samples"
    prompts = choose_prompts(root, split, study.samples.prompts)
    files: dict[str, list[str]] = {str(i): [] for i in range(len(prompts))}
    jobs = []
    for column, row in enumerate(best):
        requests = [
            _request(study, prompt, folder / f"budget-{column}" / f"{number}.mp4")
            for number, prompt in enumerate(prompts)
        ]
        if column == len(best) - 1:
            requests += [
                {
                    "out": str(folder / "reference" / f"{number}.mp4"),
                    "fps": prompt.fps,
                    "reference": {"root": root, "split": split, "key": prompt.key},
                }
                for number, prompt in enumerate(prompts)
            ]
        jobs.append(_job(study, row, folder / f"budget-{column}", requests))
        for number in range(len(prompts)):
            files[str(number)].append(f"budget-{column}/{number}.mp4")
    ladder = {
        "prompts": [
            {
                "id": str(number),
                "text": prompt.caption,
                "shape": f"{prompt.num_frames} x {prompt.height} x {prompt.width}",
            }
            for number, prompt in enumerate(prompts)
        ],
        "columns": [
            {
                "budget": row["budget"],
                "run": row["name"],
                "params": row["params"],
                "loss": row["loss"],
                "flops": row["flops"],
            }
            for row in best
        ],
        "files": files,
        "reference": {str(n): f"reference/{n}.mp4" for n in range(len(prompts))},
    }
    return jobs, ladder


def _request(study: SampledStudy, prompt: SampleInfo, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "prompt": prompt.caption,
        "num_frames": prompt.num_frames,
        "height": prompt.height,
        "width": prompt.width,
        "fps": prompt.fps,
        "steps": study.samples.steps,
        "guidance": study.samples.guidance,
    }


def _job(
    study: SampledStudy,
    row: dict[str, Any],
    folder: Path,
    requests: list[dict[str, Any]],
) -> Job:
    """Write a request file; the last clip it asks for marks the job as done."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "requests.json"
    text = json.dumps({"run": row["name"], "requests": requests}, indent=1)
    stamp = folder / "requested.json"
    if not stamp.exists() or stamp.read_text() != text:
        for request in requests:
            Path(request["out"]).unlink(missing_ok=True)
        stamp.write_text(text)
    file.write_text(json.dumps(requests, indent=1))
    run = study.folder / "runs" / row["name"]
    return Job(
        name=f"samples-{folder.name}",
        run_dir=folder,
        argv=[sys.executable, "-m", "trainer.generate", f"run={run}", f"requests={file}"],
        num_processes=1,
        cost=float(row["params"]),
        done_marker=Path(requests[-1]["out"]),
    )
