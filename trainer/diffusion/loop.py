"""The training loop: a planned step in, an updated model out, until the horizon or a signal."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.loading.batch import Step
from data.loading.loader import Loader
from models.architecture import specification_of
from models.config import Draws
from models.initial import Drawn, drawn_values
from models.network import initial_values
from models.objective import build_objective
from models.tasks import Task
from trainer.checkpoint.read import Loaded, stored_values
from trainer.checkpoint.write import CheckpointWriter
from trainer.config import RunConfig
from trainer.diffusion.branch import load_start
from trainer.diffusion.collate import Collator
from trainer.diffusion.ema import PowerEma
from trainer.diffusion.evaluate import Stopped, Validation, Validator
from trainer.diffusion.horizon import Horizon
from trainer.diffusion.loss_guard import Guard, Verdict
from trainer.diffusion.micro_batch import MicroBatch, accumulate, measure, prepare
from trainer.diffusion.progress import Progress, Recorder, Window
from trainer.layout.plan import Fragment
from trainer.optim import learning_rate
from trainer.parallel.engine import Engine, attention_of
from trainer.parallel.mesh import Mesh
from trainer.rng import generator
from trainer.run.heartbeat import Heartbeat
from trainer.run.metrics import read_metrics
from trainer.run.session import SaveClock

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss stopped being a number, or jumped too often."""


class Training:
    """One run on one rank: build or resume, then :meth:`run`."""

    def __init__(
        self,
        run: RunConfig,
        folder: Path,
        mesh: Mesh,
        loader: Loader,
        horizon: Horizon,
        recorder: Recorder,
        heartbeat: Heartbeat,
        writer: CheckpointWriter,
    ) -> None:
        self.run_config, self.folder, self.mesh = run, folder, mesh
        self.loader, self.horizon, self.recorder = loader, horizon, recorder
        self._heartbeat, self._writer = heartbeat, writer
        self.collator = Collator(run.codec, run.text)
        self.progress, self._window, self._guard = Progress(), Window(), Guard(run.faults)
        self._facts, self._objective = specification_of(run.model), build_objective(run.objective)
        self._curve_due = False  # a signal came before the curve's validation of the last step
        heartbeat.advance(0, "load")
        loaded = load_start(run, folder, horizon.steps, mesh)
        heartbeat.advance(0, "start")
        values = partial(stored_values, loaded, self._facts, "param") if loaded else self._fresh
        attention = attention_of(run.model, run.parallel, mesh)
        if mesh.is_main:
            log.info("%s", attention)
        predicts, attend = self._objective.coefficients, attention.attend
        self.engine = Engine(run.model, values, run.optim, run.parallel, mesh, attend, predicts)
        self.ema = PowerEma(self.engine, run.optim.ema_sigma)
        if loaded is not None:
            heartbeat.advance(0, "load")
            self._restore(loaded)
            self._curve_due = loaded.state.get("curve_due", False)
            self.loader.load_state_dict(loaded.state["loader"])
            self._guard = Guard.from_dict(run.faults, loaded.state["guard"])
            if mesh.is_main:
                log.info("resumed from %s", loaded.folder)
        low, high = run.objective.t_range
        if mesh.is_main and (low, high) != (0, 1):
            log.info("times of training and validation lie in [%g, %g] alone", low, high)
        # Not one more than the checkpoint's: an attempt may have died before it saved anything.
        self.progress.attempts = writer.attempt
        self.recorder.open(self.progress)
        self._validators: dict[tuple[str, int, Task], Validator] = {}
        self._saves = SaveClock(run.checkpoint)
        heartbeat.advance(self.progress.step, "start")  # collectives and kernels of a first step
        self._saving: int | None = None  # step of a save whose outcome nobody has asked for yet

    def _fresh(self, names: Collection[str]) -> Iterator[tuple[str, Tensor | Drawn]]:
        model, seed = self.run_config.model, self.run_config.seed
        if model.draws is Draws.named:
            return drawn_values(model, seed, names)
        return initial_values(model, _init_generator(seed))

    def _restore(self, loaded: Loaded) -> None:
        """Copy saved weights, optimizer state and averages into this rank's fragments."""
        for kind in ("param", "exp_avg", "exp_avg_sq"):
            self.engine.write(kind, partial(stored_values, loaded, self._facts, kind))
        self.engine.publish()
        self.engine.fill(self.ema.average, partial(stored_values, loaded, self._facts, "ema"))
        self.progress = Progress(**loaded.state["progress"])
        self._window = Window(**loaded.state["window"])
        self.engine.set_progress(self.progress.updates)

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Train to the horizon; return False when a signal stopped the run early (and saved)."""
        total = self.horizon.steps
        curve_steps = self._curve_steps()
        if self.progress.step < total and self.mesh.any(should_stop()):
            return False  # nothing was done that is not in the checkpoint
        if self._curve_is_due() and not self._log_curve(should_stop):
            return False
        while self.progress.step < total:
            rewinds = self.progress.rewinds
            stop, save, norm, lr = self._step(should_stop)
            step = self.progress.step
            if self.progress.rewinds == rewinds:  # else this step was logged before its checkpoint
                stop |= self._log(norm, lr, curve_steps, should_stop if not stop else None)
            if step % self.run_config.parallel.check_every == 0:
                self.engine.check_equal()
            if (stop or save) and step < total:
                # After the logging: what a checkpoint holds and what metrics.jsonl says agree.
                self.save()
            if stop and step < total:
                self.finish_save()
                return False
        return True

    def _log(
        self,
        norm: float,
        lr: float,
        curve_steps: set[int],
        should_stop: Callable[[], bool] | None,
    ) -> bool:
        """Write what is due after a step; tell whether a signal stopped its validation.

        should_stop: None when the run stops anyway: then the next attempt validates.
        """
        step = self.progress.step
        if step % self.run_config.log.every == 0 or step == self.horizon.steps:
            self.recorder.log_step(self.progress, self._window, norm, lr)
            self._window = Window()
        if step in curve_steps:
            self._curve_due = True
            return should_stop is not None and not self._log_curve(should_stop)
        return False

    def _step(self, should_stop: Callable[[], bool]) -> tuple[bool, bool, float, float]:
        """Do one optimizer step; return the agreed flags (stop, save), gradient norm and rate."""
        started, step = time.monotonic(), self.progress.step
        self._heartbeat.advance(step, "data")
        planned = self.loader.next_step()
        batches = self._prepare(planned)
        self._heartbeat.advance(step, "forward and backward")
        values, flops, stop, save, lost = self._agree(batches, should_stop(), sum(planned.lost()))
        if lost:
            self._note_lost(planned)
        lr = learning_rate(self.run_config.optim, step, self.horizon.steps)
        if not values:  # nobody read anything: the step is counted, and no weight moves
            self.recorder.note_samples(step, planned)
            self._count(planned, 0, time.monotonic() - started)
            return bool(stop), bool(save), math.nan, lr
        errors = accumulate(self.engine, batches, values, self._objective)
        (error,) = self.mesh.sum(sum(float(e.sum(dtype=torch.float64)) for e in errors))
        self._heartbeat.advance(step, "update")
        verdict, norm = self._update(error / values, lr)
        self.recorder.note_samples(step, planned)
        self._count(planned, int(flops), time.monotonic() - started)
        if verdict is Verdict.update:
            self.progress.updates += 1
            self.ema.update(self.progress.updates)
            self._window.add(error, values)
            if self._reason:
                self.recorder.note_event(self.progress, "spike", self._reason, _keys(planned))
        else:
            self._handle(verdict, self._culprits(error, errors, batches, planned), planned)
        return bool(stop), bool(save), norm, lr

    def _prepare(self, planned: Step) -> list[MicroBatch]:
        batches = [prepare(p, self.run_config, self.collator, self.mesh) for p in planned.packs]
        for batch in batches:
            self.loader.accounting().add_captions(batch.caption_rows, batch.pack.caption_rows)
        return batches

    def _agree(self, batches: list[MicroBatch], stop: bool, lost: int) -> list[float]:
        """Sum the loss denominator, FLOPs, flags and losses over ranks before the first forward."""
        save = self.mesh.is_main and self._saves.due(self.progress.step)
        return self.mesh.sum(*self._totals(batches), float(stop), float(save), float(lost))

    def _totals(self, batches: list[MicroBatch]) -> tuple[float, float]:
        """Return values and FLOPs of a replica, told by one of its ranks."""
        counted = batches if self.mesh.leads_replica else []  # its peers hold the same packs
        return float(sum(b.values for b in counted)), float(sum(b.flops for b in counted))

    def _note_lost(self, planned: Step) -> None:
        """Name what no rank trains on, since its replica's reader could not read it."""
        lost = self.mesh.sum(*map(float, planned.lost()))
        keys = [key for key, count in zip(_keys(planned), lost, strict=True) if count]
        reason = "a rank could not read them, so no rank trains on them"
        self.recorder.note_event(self.progress, "dropped", reason, keys)

    def _update(self, loss: float, lr: float) -> tuple[Verdict, float]:
        """Update the weights unless the guard objects; the verdict is the same on all ranks."""
        verdicts: list[tuple[Verdict, str]] = []

        def decide(norm: float) -> bool:
            verdicts.append(self._guard.judge(loss, math.isfinite(norm)))
            return verdicts[0][0] is Verdict.update

        norm = self.engine.step(lr, decide)
        (verdict, self._reason) = verdicts[0]
        return verdict, norm

    def _culprits(
        self, error: float, errors: list[Tensor], batches: list[MicroBatch], planned: Step
    ) -> list[str]:
        """Return the keys of samples with a loss that is no number, the same on all ranks."""
        if math.isfinite(error):
            return []
        order = {key: i for i, key in enumerate(_keys(planned))}
        bad = [0.0] * len(order)
        for found, batch in zip(errors, batches, strict=False):
            for number in batch.pack.segment[~found.isfinite()].unique().tolist():
                for key in batch.keys[number : number + 1]:  # a pack that lost all has none
                    bad[order[key]] = 1.0
        bad = self.mesh.sum(*bad)
        return [key for key, i in order.items() if bad[i]]

    def _handle(self, verdict: Verdict, keys: list[str], planned: Step) -> None:
        """Carry out a verdict against the step that was just counted."""
        keys = keys or _keys(planned)
        self.recorder.note_event(self.progress, verdict.value, self._reason, keys)
        if verdict is Verdict.stop:
            raise Diverged(f"step {self.progress.step}: {self._reason} Samples: {keys}")
        if verdict is Verdict.rewind:
            self._rewind()

    def _rewind(self) -> None:
        """Go back to the last checkpoint's weights but not to its data: the batches are skipped."""
        self.finish_save()
        loaded = load_start(self.run_config, self.folder, self.horizon.steps, self.mesh)
        if loaded is None:
            raise Diverged(f"step {self.progress.step}: {self._reason} No checkpoint to rewind to.")
        before = self.progress
        self._restore(loaded)
        self.progress.keep_spent(before)
        self._guard.rewind_to(loaded.state["guard"])
        self.recorder.open(self.progress)

    def _count(self, planned: Step, flops: int, seconds: float) -> None:
        self.progress.count(planned, self.loader.cell, flops, seconds)

    def _curve_steps(self) -> set[int]:
        points, total = self.run_config.validation.curve_points, self.horizon.steps
        return {round(total * (i + 1) / (points + 1)) for i in range(points)} - {0, total}

    def _curve_is_due(self) -> bool:
        """Tell whether the step resumed at still lacks its validation; the same on all ranks."""
        path, step = self.folder / "metrics.jsonl", self.progress.step
        there = self.mesh.is_main and any(
            r["step"] == step and "loss" in r for r in read_metrics(path)
        )
        self._curve_due = self._curve_due and not self.mesh.any(there)
        return self._curve_due

    def _log_curve(self, should_stop: Callable[[], bool]) -> bool:
        """Validate for the curve; tell whether it was not stopped."""
        validation = self.run_config.validation
        try:
            result = self.validate(validation.splits[0], validation.curve_samples, 1, should_stop)
        except Stopped:
            return False
        self.recorder.log_losses(self.progress, {"loss": result.loss})
        self._curve_due = False
        return True

    def validate(
        self,
        split: str,
        samples: int,
        draws: int = 2,
        should_stop: Callable[[], bool] | None = None,
        task: Task = Task.text_to_video,
    ) -> Validation:
        """Measure the averaged weights on a split, under the layout of the run; collective.

        Raises Stopped when a signal came.
        """
        self._heartbeat.advance(self.progress.step, "validation")
        key = (split, samples, task)
        if key not in self._validators:
            self._validators[key] = Validator(
                self.run_config, split, self.collator, self.mesh, samples, task
            )
        with self.engine.weights(self.ema.average):
            return self._validators[key].measure_by(
                partial(measure, self.engine, self._objective), draws, should_stop
            )

    def save(self) -> None:
        """Start to write a checkpoint of this moment; collective."""
        self.finish_save()
        self._heartbeat.advance(self.progress.step, "checkpoint")
        fragments = [
            Fragment(
                f.name, f.start, {**f.tensors, "ema": self.ema.average[f.name]}, f.part, f.parts
            )
            for f in self.engine.fragments()
            if self.engine.writes(f)
        ]
        state = {
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "window": asdict(self._window),
            "guard": self._guard.state_dict(),
            "layout": str(self.mesh.layout),
            "curve_due": self._curve_due,
        }
        self._writer.save(self.progress.step, fragments, state)
        self._saving = self.progress.step
        self._saves.reset()

    def finish_save(self) -> bool:
        """Wait for the last save; tell whether it is on disk, and note it as an event if not."""
        step, self._saving = self._saving, None
        if step is None or self._writer.wait() is not None:
            return True
        reason = f"the checkpoint of step {step} could not be written"
        self.recorder.note_event(self.progress, "save failed", reason, [])
        return False


def _keys(planned: Step) -> list[str]:
    """Return the keys of a step's samples on all ranks."""
    return [info.key for pack in planned.plan for info, _ in pack]


def _init_generator(seed: int) -> torch.Generator:
    """Return torch's generator for initial weights, keyed by the run's seed alone."""
    word = int(generator(seed, "init", "", 0).integers(0, 2**62))
    return torch.Generator().manual_seed(word)
