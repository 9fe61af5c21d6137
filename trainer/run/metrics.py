"""What a run writes down: metrics.jsonl is the truth, W&B mirrors it."""

import json
import math
import os
from pathlib import Path
from typing import Any, TextIO

from data.files import write_text
from trainer.config import RunConfig, WandbMode


class MetricsFile:
    """Append-only JSON lines; after a rollback the repeated steps are cut off first."""

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        _keep_until(path, resume_step)
        self._file = path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record with at least a ``step``; visible to readers at once."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read records; a last line that a crash cut short is ignored."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def append_lines(path: Path) -> TextIO:
    """Open a file of JSON lines to append to; a last line that a crash cut short is ended first."""
    file = path.open("a")
    if path.stat().st_size:
        with path.open("rb") as found:
            found.seek(-1, os.SEEK_END)
            if found.read() != b"\n":
                file.write("\n")
    return file


def _keep_until(path: Path, step: int) -> None:
    """Keep what was written before the checkpoint of a step was saved."""
    records = [
        record
        for record in read_metrics(path)
        if record["step"] < step or (record["step"] == step and not _is_final(record))
    ]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def _is_final(record: dict[str, Any]) -> bool:
    """Tell the validation at the end, which a run that resumes at its last step repeats."""
    return any(key.startswith("loss/") for key in record)


class WandbMirror:
    """Log the records of metrics.jsonl to W&B on our own step axis.

    Online it follows the run; offline it is written once at the end, because an id that is logged
    twice offline makes two folders. Either way it is rebuilt from metrics.jsonl.
    """

    def __init__(self, run: RunConfig, folder: Path) -> None:
        self._run, self._folder, self._seen = run, folder, 0
        self._wandb: Any = None

    def catch_up(self, final: bool = False) -> None:
        """Send records that were not sent yet."""
        mode = self._run.log.wandb
        if mode is WandbMode.disabled or (mode is WandbMode.offline and not final):
            return
        if self._wandb is None:
            self._wandb = start_wandb(
                self._folder.name,
                mode,
                self._folder,
                self._run.log.project,
                self._run.log.group,
                list(self._run.log.tags),
                _flat_config(self._folder),
            )
        records = read_metrics(self._folder / "metrics.jsonl")
        for record in records[self._seen :]:
            self._wandb.log({k: v for k, v in record.items() if _is_number(v)})
        self._seen = len(records)

    def finish(self, summary: dict[str, Any]) -> None:
        """Send what is left and the result, then close."""
        self.catch_up(final=True)
        if self._wandb is not None:
            self._wandb.summary.update({k: v for k, v in summary.items() if _is_number(v)})
            self._wandb.finish()


def start_wandb(
    name: str,
    mode: WandbMode,
    folder: Path,
    project: str,
    group: str,
    tags: list[str],
    config: dict[str, Any],
) -> Any:
    """Start a W&B run whose x-axis is our own ``step``; nothing of the machine is collected."""
    os.environ.setdefault("WANDB_SILENT", "true")
    # The default flush of 15 s loses all of it when the process is killed.
    os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "0.5")
    import wandb

    run = wandb.init(
        project=project,
        group=group or None,
        tags=tags or None,
        name=name,
        id=name[-64:],
        dir=str(folder),
        mode=mode.value,
        resume="allow" if mode is WandbMode.online else None,
        config=config,
        settings=wandb.Settings(
            console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, host="-"
        ),
    )
    run.define_metric("*", step_metric="step")
    return run


def _flat_config(folder: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
