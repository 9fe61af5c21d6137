"""Do all layouts that fit here compute the same, and what does each ZeRO stage hold in memory?

The processes of a world are started once by torchrun and go through its layouts one after another;
where they die or hang, the layout they were at has failed and the rest is started again.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch

from models.config import ModelConfig
from trainer.gpu_checks.curve import PACKS, Curve, largest_error, train_curve
from trainer.gpu_checks.report import Case, Finding, Settings, Skip, within
from trainer.gpu_checks.samples import TINY
from trainer.layout.config import Gradients, ParallelConfig, Precision
from trainer.parallel.mesh import join_mesh, start_mesh, stop_mesh

TOLERANCE = 1e-4  # of losses and gradient norms, relative; measured on CPU: 1e-7
STEPS, SECONDS_EACH, SECONDS_START = 3, 20, 120
MEMORY_MODEL = ModelConfig(width=1024, depth=8, head_dim=64, text_width=32)
GIB = 2**30

_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")  # of a world that is not ours


@dataclass(frozen=True)
class Job:
    """One layout to train under.

    reduce: how gradients are, "scatter", "overlap" or as by default. head_ranks: as the key.
    memory: with the large model in bf16, to see what it holds; wide: its gradients in fp32.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    zero_stage: int = 0
    reduce: str = ""
    head_ranks: int = 0
    memory: bool = False
    wide: bool = False

    @property
    def world(self) -> int:
        """Processes it takes."""
        return self.tp * self.cp * self.pp * self.dp

    def parallel(self, device: str) -> ParallelConfig:
        """Return the layout as the trainer's schema."""
        return ParallelConfig(
            processes=self.world,
            tp=self.tp,
            cp=self.cp,
            pp=self.pp,
            head_ranks=self.head_ranks,
            zero_stage=self.zero_stage,
            reduce_scatter=self.reduce == "scatter",
            overlap_comm=self.reduce == "overlap",
            device=device,
            precision=Precision.bf16 if self.memory else Precision.fp32,
            gradients=Gradients.fp32 if self.wide else Gradients.own,
            timeout_seconds=60,
            start_timeout_seconds=60,
        )

    def __str__(self) -> str:
        sizes = [f"{key}{size}" for key, size in asdict(self).items() if key in _AXES and size > 1]
        more = [f" {self.reduce}"] if self.reduce else []
        more += [f" head_ranks {self.head_ranks}"] if self.head_ranks else []
        return f"{'-'.join(sizes) or 'one process'} ZeRO {self.zero_stage}{''.join(more)}"


_AXES = ("tp", "cp", "pp", "dp")


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every layout of 1, 2, 4, 8 and 16 processes that fits, against one process."""
    room = torch.cuda.device_count() if settings.on_cuda else 2
    reference: list[Curve] = []
    for world in (1, 2, 4, 8, 16):
        jobs = list(_jobs(world, settings.quick))
        if world > room:
            title = f"{len(jobs)} jobs of {world} processes, and one process ZeRO 0"
            yield Case(title, partial(_refuse, room, settings))
            continue
        backend = "NCCL" if settings.on_cuda else "gloo"
        curves = _train(jobs, settings)
        for job, curve in zip(jobs, curves, strict=True):
            if not reference and isinstance(curve, Curve):
                reference.append(curve)
            yield Case(
                f"{backend}: {job}, and one process ZeRO 0", partial(_judge, curve, reference)
            )


def memory_cases(settings: Settings) -> Iterator[Case]:
    """Yield the peak memory of every ZeRO stage over all GPUs here."""
    if not settings.on_cuda:
        yield Case("peak memory of ZeRO 1 to 3", _no_memory)
        return
    gpus = 2 ** (min(torch.cuda.device_count(), 8).bit_length() - 1)
    kinds = [*((stage, False) for stage in (1, 2, 3)), (2, True)]
    jobs = [Job(dp=gpus, zero_stage=stage, memory=True, wide=wide) for stage, wide in kinds]
    for job, curve in zip(jobs, _train(jobs, settings), strict=True):
        gradients = "fp32 gradients" if job.wide else "bf16"
        title = f"peak of one of {gpus} GPUs: ZeRO {job.zero_stage}, {gradients}, 1024 wide, 8 deep"
        yield Case(title, partial(_peak, curve))


def _jobs(world: int, quick: bool) -> Iterator[Job]:
    for tp, cp, pp, dp in product((1, 2), repeat=4):
        if tp * cp * pp * dp != world:
            continue
        stages = [0, 1, 2, 3] if pp == 1 else [0, 1, 2]  # ZeRO 3 deadlocks with stages of blocks
        if quick and world > 1:
            stages = [3] if dp == world else [1]
        for stage in stages:
            yield Job(tp, cp, pp, dp, stage)
        if not quick and dp == world:  # also alone: the streams and buckets are the same
            for stage, way in ((1, "scatter"), (2, "scatter"), (2, "overlap"), (3, "overlap")):
                yield Job(dp=dp, zero_stage=stage, reduce=way)
        if not quick and 1 < cp == world:
            yield Job(cp=cp, zero_stage=1, head_ranks=1)


def _refuse(room: int, settings: Settings) -> Finding:
    if settings.on_cuda:
        raise Skip(f"{room} GPU(s) here; over gloo on CPU: make test-dist")
    raise Skip("on CPU two processes show that the command runs")


def _no_memory() -> Finding:
    raise Skip("the CPU's allocator keeps no peak")


def _judge(curve: "Curve | str", reference: list[Curve]) -> Finding:
    if isinstance(curve, str):
        raise RuntimeError(curve)
    if not reference:
        raise RuntimeError("one process failed, so there is nothing to compare with")
    finding = within(largest_error(curve, reference[0]), TOLERANCE)
    return replace(finding, seconds=sum(curve.seconds))


def _peak(curve: "Curve | str") -> Finding:
    if isinstance(curve, str):
        raise RuntimeError(curve)
    found = f"{curve.peak_bytes / GIB:.2f} GiB, {curve.seconds[-1]:.3f} s a step"
    return Finding(found, seconds=sum(curve.seconds))


def _train(jobs: list[Job], settings: Settings) -> list["Curve | str"]:
    """Train under all layouts of one world; a layout that fails gives the end of the log."""
    found: list[Curve | str] = []
    with tempfile.TemporaryDirectory() as scratch:
        while len(found) < len(jobs):
            rest = jobs[len(found) :]
            curves, log = _start(rest, settings, Path(scratch))
            found += curves
            if len(curves) < len(rest):
                found.append(log)
    return found


def _start(jobs: list[Job], settings: Settings, scratch: Path) -> tuple[list[Curve], str]:
    """Start the processes of a world; return what they finished and the end of their log."""
    plan, out = scratch / "jobs.json", scratch / "curves.jsonl"
    plan.write_text(json.dumps([asdict(job) for job in jobs]))
    out.unlink(missing_ok=True)
    arguments = [settings.device.type, str(plan), str(out)]
    limit = SECONDS_START + SECONDS_EACH * len(jobs)
    log = start_world(jobs[0].world, "trainer.gpu_checks.layouts", arguments, scratch, limit)
    lines = out.read_text().splitlines() if out.exists() else []
    return [Curve(**json.loads(line)) for line in lines], log


def start_world(
    world: int, module: str, arguments: list[str], scratch: Path, seconds: float
) -> str:
    """Run a module in so many processes, at most so long; return the end of their log."""
    log = scratch / "log"
    command = [sys.executable, "-m"]
    if world > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node"]
        command += [str(world), "-m", "--"]
    command += [module, *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_PLACE)}
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its processes on SIGTERM
            process.wait(60)
    return _last_error(log.read_text())


def _last_error(log: str) -> str:
    """Return the line of a log that most likely says what went wrong."""
    lines = [line.strip() for line in log.splitlines() if "Error" in line]
    own = [line for line in lines if "ChildFailedError" not in line]
    return (own or lines or ["the processes ended without a word"])[0][-200:]


def _worker(device: str, plan: Path, out: Path) -> None:
    """Go through the layouts of a world as one of its ranks."""
    jobs = [Job(**record) for record in json.loads(plan.read_text())]
    world = start_mesh(jobs[0].parallel(device))
    for job in jobs:
        parallel = job.parallel(device)
        mesh = join_mesh(parallel.layout, world.device)
        if job.memory:
            packs = parallel.layout.dp
            curve = train_curve(MEMORY_MODEL, parallel, mesh, 3, budget=4096, packs=packs)
        else:
            curve = train_curve(TINY, parallel, mesh, STEPS, packs=PACKS)
        mesh.barrier()
        stop_mesh(mesh)
        if world.is_main:
            with out.open("a") as stream:
                stream.write(json.dumps(asdict(curve)) + "\n")
    stop_mesh(world)


if __name__ == "__main__":
    _worker(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
