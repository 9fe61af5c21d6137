"""Follow a run folder and send what it says to W&B until the run ends."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.secrets import masked_in
from trainer.log_config import WandbMode
from trainer.mirror.tail import Tail, read_sent, write_sent
from trainer.mirror.wandb_run import numbers, start_wandb

_SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")


class Mirror:
    """One run's mirror: records in, a W&B run out.

    Everything that wandb may raise becomes Broken here, once. Nothing is lost by it, since
    metrics.jsonl stays and ``kinescale wandb-sync`` reads it.
    """

    def __init__(self, folder: Path, mode: WandbMode) -> None:
        self._folder, self._mode = folder, mode
        self._tail = Tail(folder / "metrics.jsonl")
        self.sent = read_sent(folder)
        write_sent(folder, self.sent)  # its id stays, whatever happens next
        self._run: Any = None

    def catch_up(self) -> int:
        """Send the records that are new; return how many. Raises Broken."""
        count = 0
        for record in self._tail.read():
            self._try(_nothing)  # a run that is open knows what its server holds
            if not self.sent.knows(record):
                self._try(partial(_log, record))
                self.sent.note(record)
                count += 1
        if count:
            write_sent(self._folder, self.sent)
        return count

    def finish(self) -> None:
        """Send the rest and, where there is one, the result; then close."""
        self.catch_up()
        result = _read_json(self._folder / "result.json")
        if result:
            self._try(partial(_summarise, result))
        if self._run is not None:
            self._try(_close)
        self.sent.finished = bool(result)
        write_sent(self._folder, self.sent)

    def _try(self, act: Callable[[Any], object]) -> None:
        """Act on the W&B run, which is opened first if need be."""
        try:
            if self._run is None:
                self._run = self._open()
            act(self._run)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise Broken(f"{self._mode.value}: {type(error).__name__}: {reason}") from error

    def _open(self) -> Any:
        config = OmegaConf.to_container(OmegaConf.load(self._folder / "config.yaml"))
        assert isinstance(config, dict)
        logging_ = config.get("log", {})
        run = start_wandb(
            self._folder.resolve().name,
            self._mode,
            self._folder,
            logging_.get("project", "kinescale"),
            logging_.get("group", ""),
            list(logging_.get("tags") or []),
            masked_in(config, os.environ) | _where(self._folder),
            self.sent.id,
        )
        self.sent.offline = self._mode is WandbMode.offline
        if not self.sent.offline:
            self.sent.at(run.step)
        return run


def _nothing(run: Any) -> None:
    pass


def _log(record: dict[str, Any], run: Any) -> None:
    # W&B's own step is ours too: records of one step share a row, and none comes twice.
    run.log(numbers(record), step=record["step"])


def _summarise(result: dict[str, Any], run: Any) -> None:
    run.summary.update(numbers(result))


def _close(run: Any) -> None:
    run.finish()


class Broken(RuntimeError):
    """W&B does not take what is sent: the server, its service, or the disk."""


def follow(mirror: Mirror, wait: Callable[[float], bool], seconds: float = 1.0) -> None:
    """Send what is new every ``seconds`` until ``wait`` says that the run is over; then finish."""
    while not wait(seconds):
        mirror.catch_up()
    mirror.finish()


def _where(folder: Path) -> dict[str, Any]:
    """Return the job and the commit, for the W&B run's config."""
    about = {name.lower(): os.environ[name] for name in _SLURM if name in os.environ}
    if git := _read_json(folder / "env.json").get("git"):
        about["commit"] = git
    return about


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
