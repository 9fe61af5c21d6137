"""One attempt at a run: join the group, build, train, validate, write the result."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.loader import Loader
from data.shards import read_manifest
from trainer.config import RunConfig
from trainer.evaluate import Validation
from trainer.horizon import plan_horizon
from trainer.loop import Diverged, Training
from trainer.metrics import MetricsFile, WandbMirror
from trainer.parallel.layout import Layout, start_layout, stop_layout
from trainer.result import environment, summarise, write_json, write_result

log = logging.getLogger(__name__)
_PRINT_SECONDS = 10.0


def train_run(run: RunConfig, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Train a frozen run to its result; return False when it was stopped before the end."""
    check_encoding(run)
    layout = start_layout(run.parallel)
    loader: Loader | None = None
    try:
        if layout.is_main:
            write_json(folder / "env.json", environment())
        loader = Loader(
            run.data, run.data.train_split, run.cell, run.seed, layout.rank, layout.world
        )
        horizon = plan_horizon(run, loader.infos)
        training = Training(run, folder, layout, loader, horizon)
        if layout.is_main:
            log.info("%s: %d steps of %.0f tokens", folder.name, horizon.steps, horizon.step_tokens)
        return _train(training, run, folder, layout, should_stop)
    finally:
        if loader is not None:
            loader.close()
        stop_layout(layout)


def check_encoding(run: RunConfig) -> None:
    """Refuse latents that another codec or text encoder made; clips and foreign sets pass."""
    manifest = Path(run.data.root) / "manifest.json"
    made_by = read_manifest(run.data.root) if manifest.is_file() else {}
    for part, wanted in (("codec", asdict(run.codec)), ("text", asdict(run.text))):
        found = made_by.get(part) or wanted
        wrong = [key for key in wanted if found.get(key) != wanted[key]]
        if wrong:
            key = wrong[0]
            raise ValueError(
                f"{part}.{key}={wanted[key]}: must equal {found[key]}, with which {run.data.root} "
                f"was encoded. Use that, or encode again: python -m trainer.encode --help."
            )


def _train(
    training: Training, run: RunConfig, folder: Path, layout: Layout, should_stop: Callable
) -> bool:
    metrics = mirror = None
    if layout.is_main:
        metrics = ReportingMetrics(
            folder / "metrics.jsonl", training.progress.step, training.horizon.steps
        )
        mirror = WandbMirror(run, folder)
    try:
        if not training.run(metrics, mirror, should_stop):
            return False
        validations = _final_validations(training, run, metrics)
    except Diverged as error:
        if layout.is_main:
            _write_diverged(run, folder, training, str(error))
        log.error("%s", error)
        return True
    finally:
        if metrics is not None:
            metrics.close()
    training.save()
    if layout.is_main:
        accounting = training.loader.accounting()
        details = accounting.to_dict() | {"padding_share": accounting.padding_share}
        result = summarise(run, folder, training.progress, validations, details)
        log.info("accounting\n%s", accounting.table())
        log.info("loss %.4f +- %.4f (noise draws)", result["loss"], result["loss_noise"])
        assert mirror is not None
        mirror.finish(result)
        write_result(folder, result)
    return True


def _final_validations(
    training: Training, run: RunConfig, metrics: MetricsFile | None
) -> dict[str, Validation]:
    """Validate on every split; the first split's loss also closes the curve."""
    found = {s: training.validate(s, run.validation.samples) for s in run.validation.splits}
    if metrics is not None:
        progress = training.progress
        counts: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "flops": progress.flops,
        }
        losses = {f"loss/{split}": value.loss for split, value in found.items()}
        metrics.write(counts | {"loss": found[run.validation.splits[0]].loss} | losses)
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
        self._total, self._first = total_steps, resume_step
        self._started = self._printed = time.monotonic()

    def write(self, record: dict[str, Any]) -> None:
        """Append a record and print a line when the last one is old or the run is at its end."""
        super().write(record)
        now, step = time.monotonic(), record["step"]
        if "train_loss" not in record:
            return
        if step < self._total and now - self._printed < _PRINT_SECONDS:
            return
        self._printed = now
        rate = (step - self._first) / max(now - self._started, 1e-9)
        left = (self._total - step) / max(rate, 1e-9)
        print(
            f"step {step}/{self._total}  loss {record['train_loss']:.4f}  "
            f"lr {record['lr']:.2e}  {record['tokens_per_second']:.0f} tokens/s  "
            f"ETA {int(left // 60):02d}:{int(left % 60):02d}",
            file=sys.stderr,
            flush=True,
        )
