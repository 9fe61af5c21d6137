"""The training loop: a planned step in, an updated model out, until the horizon or a signal."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from data.loader import Loader
from data.pack import tokens
from models.dit import DiT
from models.roles import role_groups
from trainer.checkpoint import Loaded, load_latest, save_checkpoint
from trainer.collate import Collator
from trainer.config import RunConfig
from trainer.ema import PowerEma
from trainer.evaluate import Validation, Validator
from trainer.horizon import Horizon
from trainer.metrics import MetricsFile, WandbMirror
from trainer.objective_step import MicroBatch, accumulate, prepare
from trainer.optim import learning_rate
from trainer.parallel.engine import Engine, Fragment
from trainer.parallel.layout import Layout
from trainer.rng import generator

log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """The loss stopped being a number."""


@dataclass
class Progress:
    """What a run has done so far; saved with every checkpoint.

    step: optimizer steps done; tokens, flops, samples: exact counts over all ranks;
    real_tokens: tokens from sources that were filmed, not rendered; seconds: training time.
    """

    step: int = 0
    tokens: int = 0
    flops: int = 0
    samples: int = 0
    real_tokens: int = 0
    seconds: float = 0.0
    attempts: int = 1


@dataclass
class _Window:
    """Loss terms since the last logged line."""

    error: float = 0.0
    values: float = 0.0


class Training:
    """One run on one rank: build or resume, then :meth:`run`."""

    def __init__(
        self, run: RunConfig, folder: Path, layout: Layout, loader: Loader, horizon: Horizon
    ) -> None:
        self.run_config, self.folder, self.layout = run, folder, layout
        self.loader, self.horizon = loader, horizon
        self.collator = Collator(run.codec, run.text)
        self.progress = Progress()
        self._window = _Window()
        loaded = load_latest(folder / "checkpoints")
        model = DiT(run.model)
        model.reset_parameters(_init_generator(run.seed))
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self.eval_model = DiT(run.model).to(layout.device).requires_grad_(False)
        if loaded is not None:
            # Before DeepSpeed sees them: its masters then start from the restored weights.
            model.load_state_dict(loaded.tensors("param", self._shapes))
        groups = role_groups(model, run.model)
        self.engine = Engine(model, groups, run.optim, run.parallel, layout)
        self.ema = PowerEma(self.engine, run.optim.ema_sigma)
        if loaded is not None:
            self._restore(loaded)
        self._validators: dict[tuple[str, int], Validator] = {}
        self._last_save = time.monotonic()

    def _restore(self, loaded: Loaded) -> None:
        """Copy saved optimizer state and averages into this rank's fragments."""
        for kind in ("param", "exp_avg", "exp_avg_sq", "ema"):
            full = loaded.tensors(kind, self._shapes)
            for fragment in self.engine.fragments():
                own = self.ema.average[fragment.name] if kind == "ema" else fragment.tensors[kind]
                whole = full[fragment.name].view(-1)
                own.copy_(whole[fragment.start : fragment.start + len(own)])
        self.progress = Progress(**loaded.state["progress"])
        self.progress.attempts += 1
        self.engine.set_progress(self.progress.step)
        self.loader.load_state_dict(loaded.state["loader"])
        if self.layout.is_main:
            self._window = _Window(**loaded.state["window"])
        if self.layout.is_main:
            log.info("resumed from %s", loaded.folder)

    def run(
        self,
        metrics: MetricsFile | None,
        mirror: WandbMirror | None,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Train to the horizon; return False when a signal stopped the run early (and saved)."""
        total = self.horizon.steps
        curve_steps = self._curve_steps()
        while self.progress.step < total:
            stop, save, norm, lr = self._step(should_stop)
            step = self.progress.step
            if step % self.run_config.log.every == 0 or step == total:
                self._log(metrics, mirror, norm, lr)
            if step in curve_steps:
                self._log_curve(metrics)
            if (stop or save) and step < total:
                # After the logging: what a checkpoint holds and what metrics.jsonl says agree.
                self.save()
            if stop and step < total:
                return False
        return True

    def _step(self, should_stop: Callable[[], bool]) -> tuple[bool, bool, float, float]:
        """Do one optimizer step; return the agreed flags (stop, save), gradient norm and rate."""
        started, progress = time.monotonic(), self.progress
        planned = self.loader.next_step()
        batches = [
            prepare(pack, self.run_config, self.collator, self.layout.device)
            for pack in planned.packs
            if pack.samples
        ]
        values, flops, stop, save, lost = self._agree(
            batches, should_stop(), len(planned.packs) - len(batches)
        )
        if lost:
            # ZeRO reduces every backward: ranks with fewer micro-batches would wait for ever.
            raise ValueError(
                f"step {progress.step}: no sample of {lost:.0f} pack(s) could be read. "
                "Check the shards; data.on_bad_sample=drop covers single samples."
            )
        error = accumulate(self.engine, batches, values)
        lr = learning_rate(self.run_config.optim, progress.step, self.horizon.steps)
        norm = self.engine.step(lr)
        if not math.isfinite(norm):
            keys = [info.key for pack in planned.plan for info, _ in pack]
            raise Diverged(f"step {progress.step}: gradient norm is {norm}; samples {keys}")
        self.ema.update(progress.step + 1)
        self._window.error += error
        self._window.values += values / self.layout.world
        self._count(planned.plan, int(flops), time.monotonic() - started)
        return bool(stop), bool(save), norm, lr

    def _agree(self, batches: list[MicroBatch], stop: bool, lost: int) -> list[float]:
        """Sum the loss denominator, FLOPs and flags over ranks before the first backward."""
        checkpoint = self.run_config.checkpoint
        due = checkpoint.seconds and time.monotonic() - self._last_save > checkpoint.seconds
        due = due or (checkpoint.steps and (self.progress.step + 1) % checkpoint.steps == 0)
        save = bool(due) and self.layout.is_main
        local = [
            float(sum(batch.values for batch in batches)),
            float(sum(batch.flops for batch in batches)),
            float(stop),
            float(save),
            float(lost),
        ]
        return self.layout.sum(*local) if self.layout.world > 1 else local

    def _count(self, plan: list[list[tuple[Any, int]]], flops: int, seconds: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.flops += flops
        progress.seconds += seconds
        for pack in plan:
            for info, _ in pack:
                length = tokens(info.num_frames, info.height, info.width, self.loader.cell)
                progress.tokens += length
                progress.real_tokens += 0 if info.rendered else length
                progress.samples += 1

    def _log(
        self, metrics: MetricsFile | None, mirror: WandbMirror | None, norm: float, lr: float
    ) -> None:
        error, values = self.layout.sum(self._window.error, self._window.values)
        self._window = _Window()
        if metrics is None:
            return
        progress = self.progress
        record = {
            "step": progress.step,
            "tokens": progress.tokens,
            "flops": progress.flops,
            "train_loss": error / values,
            "grad_norm": norm,
            "lr": lr,
            "seconds": round(progress.seconds, 3),
            "tokens_per_second": progress.tokens / max(progress.seconds, 1e-9),
        }
        metrics.write(record)
        if mirror is not None:
            mirror.catch_up()

    def _curve_steps(self) -> set[int]:
        points, total = self.run_config.validation.curve_points, self.horizon.steps
        return {round(total * (i + 1) / (points + 1)) for i in range(points)} - {0, total}

    def _log_curve(self, metrics: MetricsFile | None) -> None:
        validation = self.run_config.validation
        result = self.validate(validation.splits[0], validation.curve_samples, draws=1)
        if metrics is not None:
            progress = self.progress
            metrics.write(
                {
                    "step": progress.step,
                    "tokens": progress.tokens,
                    "flops": progress.flops,
                    "loss": result.loss,
                }
            )

    def validate(self, split: str, samples: int, draws: int = 2) -> Validation:
        """Measure the averaged weights on a split; collective."""
        key = (split, samples)
        if key not in self._validators:
            self._validators[key] = Validator(
                self.run_config, split, self.collator, self.layout, samples
            )
        self.eval_model.load_state_dict(self.engine.gather(self.ema.pieces()))
        return self._validators[key].measure(self.eval_model, draws)

    def save(self) -> None:
        """Write a checkpoint of this moment; collective."""
        fragments = [
            Fragment(f.name, f.start, {**f.tensors, "ema": self.ema.average[f.name]})
            for f in self.engine.fragments()
        ]
        if self.engine.stage == 0 and not self.layout.is_main:
            fragments = []  # every rank holds the same; one writes
        error, values = self.layout.sum(self._window.error, self._window.values)
        state = {
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "window": {"error": error, "values": values},
        }
        save_checkpoint(
            self.folder / "checkpoints",
            self.layout,
            self.progress.step,
            fragments,
            state,
            self.run_config.checkpoint.keep,
        )
        self._last_save = time.monotonic()


def _init_generator(seed: int) -> torch.Generator:
    """Return torch's generator for initial weights, keyed by the run's seed alone."""
    word = int(generator(seed, "init", "", 0).integers(0, 2**62))
    return torch.Generator().manual_seed(word)
