"""One attempt at a run: join the group, build, train, validate, write the result."""

import logging
import resource
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from data.files import write_json
from data.loading.loader import Loader
from data.words import counted
from models.tasks import Task, beside_text
from trainer.checkpoint.write import open_writer
from trainer.config import RunConfig
from trainer.diffusion.encoding import check_encoding
from trainer.diffusion.evaluate import Stopped, Validation, refuse_unmeasured
from trainer.diffusion.horizon import plan_horizon
from trainer.diffusion.loop import Diverged, Training
from trainer.diffusion.progress import Recorder
from trainer.diffusion.result import summarise, write_result
from trainer.mirror.child import Followers, tasks_of
from trainer.parallel.mesh import Mesh, end_start, flight_record, start_mesh, stop_mesh
from trainer.run.attempt import Timeline
from trainer.run.heartbeat import Heartbeat
from trainer.run.metrics import MetricsFile
from trainer.run.pace import Pace
from trainer.run.session import Session

log = logging.getLogger(__name__)


def train_run(run: RunConfig, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Train a frozen run to its result; return False when it was stopped before the end.

    Raises ValueError when another process trains the run, and Fenced when one takes it over.
    """
    check_encoding(run)
    refuse_unmeasured(run)
    mesh = start_mesh(run.parallel)
    with ExitStack() as stack:
        last = stack.enter_context(ExitStack())  # nothing of the run waits for its mirror
        stack.callback(stop_mesh, mesh)
        session = Session.take(folder, mesh)
        stack.callback(session.release)
        if mesh.is_main:
            last.callback(Followers(folder, list(tasks_of(run.log)), session.attempt).finish)
        if mesh.is_main and mesh.world > 1:
            log.info("%s", mesh.layout.table())
        place, size, data = mesh.place, mesh.layout, run.data
        loader = Loader(data, data.train_split, run.cell, run.seed, place.dp, size.dp, mesh.peers)
        stack.callback(loader.close)
        horizon = plan_horizon(run, loader.infos, loader.dataset.spans)
        if mesh.is_main:
            steps = counted(horizon.steps, "step")
            log.info("%s: %s of %.0f tokens", folder.name, steps, horizon.step_tokens)
        timeline = Timeline(folder, session.attempt) if mesh.is_main else None
        heartbeat = Heartbeat(
            folder, mesh.rank, mesh.world, run.faults.beat_seconds, run.faults.stall_seconds,
            timeline=timeline, record=flight_record,
            start_seconds=run.parallel.start_timeout_seconds,
        )  # fmt: skip
        heartbeat.start()
        stack.callback(heartbeat.stop)
        recorder = _recorder(run, session, mesh, horizon.steps, timeline)
        stack.callback(recorder.close)
        writer = open_writer(session, mesh, run.checkpoint)
        training = Training(run, folder, mesh, loader, horizon, recorder, heartbeat, writer)
        end_start(mesh, run.parallel.timeout_seconds)
        finished = _train(training, should_stop)
        if not finished:
            session.mark_stopped(training.progress.step)
        return finished


def _recorder(
    run: RunConfig, session: Session, mesh: Mesh, steps: int, timeline: Timeline | None
) -> Recorder:
    folder = session.folder
    if timeline is None:  # not the main rank
        return Recorder(folder, mesh, run.log.samples, None, session.check)
    peak = run.log.device_teraflops * 1e12 * run.parallel.processes

    def facts(flops_per_second: float) -> dict[str, float]:
        found = {"goodput": timeline.goodput(), "memory_bytes": float(peak_memory(mesh.device))}
        return found | ({"mfu": flops_per_second / peak} if peak else {})

    def metrics(resume_step: int) -> MetricsFile:
        return ReportingMetrics(folder / "metrics.jsonl", resume_step, steps)

    return Recorder(folder, mesh, run.log.samples, metrics, session.check, facts)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: by a GPU's allocator, on CPU by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _train(training: Training, should_stop: Callable[[], bool]) -> bool:
    run, folder, mesh = training.run_config, training.folder, training.mesh
    try:
        if not training.run(should_stop):
            return False
        validations = _final_validations(training, should_stop)
        tasks = _task_validations(training, should_stop)
    except Stopped:
        # In the validation at the end: the next attempt resumes after the last step.
        training.save()
        training.finish_save()
        return False
    except Diverged as error:
        if mesh.is_main:
            _write_diverged(run, folder, training, str(error))
        log.error("%s", error)
        return True
    training.save()
    if not training.finish_save():
        raise OSError(
            f"run={folder}: its last checkpoint could not be written. Make room, then start the "
            "run again: it continues from the one before."
        )
    if mesh.is_main:
        accounting = training.loader.accounting()
        details = accounting.to_dict() | {"padding_share": accounting.padding_share}
        result = summarise(run, folder, training.progress, validations, tasks, details)
        log.info("accounting\n%s", accounting.table())
        log.info("loss %.4f +- %.4f (noise draws)", result["loss"], result["loss_noise"])
        write_result(folder, result)
    return True


def _final_validations(
    training: Training, should_stop: Callable[[], bool]
) -> dict[str, Validation]:
    """Validate on every split; the first split's loss also closes the curve."""
    settings = training.run_config.validation
    found = {
        split: training.validate(split, settings.samples, should_stop=should_stop)
        for split in settings.splits
    }
    losses = {f"loss/{split}": value.loss for split, value in found.items()}
    training.recorder.log_losses(
        training.progress, {"loss": found[settings.splits[0]].loss} | losses
    )
    return found


def _task_validations(
    training: Training, should_stop: Callable[[], bool]
) -> dict[Task, Validation]:
    """Measure what each task of the mixture costs on the first split; nothing without a mixture."""
    settings, weights = training.run_config.validation, training.run_config.objective.tasks
    found = {
        task: training.validate(settings.splits[0], settings.samples, 2, should_stop, task)
        for task in beside_text(weights)
    }
    if found:
        losses = {f"loss/task/{task}": value.loss for task, value in found.items()}
        training.recorder.log_losses(training.progress, losses)
    return found


def _write_diverged(run: RunConfig, folder: Path, training: Training, reason: str) -> None:
    """Record a run whose loss stopped being a number: it counts as done, and says why."""
    progress = training.progress
    record = {"name": folder.name, "status": "diverged", "reason": reason, "seed": run.seed}
    counts = {"steps": progress.step, "tokens": progress.tokens, "flops": progress.flops}
    write_json(folder / "result.json", record | counts)


class ReportingMetrics(MetricsFile):
    """metrics.jsonl that also tells a person how far the run is, with the time left."""

    def __init__(self, path: Path, resume_step: int, total_steps: int) -> None:
        super().__init__(path, resume_step)
        self._pace = Pace(resume_step, total_steps)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record and print a line when the last one is old or the run is at its end."""
        super().write(record)
        step = record["step"]
        if "train_loss" in record and self._pace.due(step):
            self._pace.tell(
                step,
                f"loss {record['train_loss']:.4f}  lr {record['lr']:.2e}  "
                f"{record['tokens_per_second']:.0f} tokens/s",
            )
