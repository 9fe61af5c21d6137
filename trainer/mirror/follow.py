"""Follow a run folder and send what it says to W&B until the run ends."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from data.reading import read_object
from data.secrets import masked, masked_in
from trainer.log_config import WandbMode
from trainer.mirror.ending import Alert, ending_of
from trainer.mirror.events import Events
from trainer.mirror.tail import Tail, read_sent, write_sent
from trainer.mirror.wandb_run import About, numbers, start_wandb

_SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")


class Mirror:
    """One run's mirror: records in, a W&B run out.

    Everything that wandb may raise becomes Broken here, once. Nothing is lost by it, since
    metrics.jsonl stays and ``kinescale wandb-sync`` reads it. attempt: the one that is followed,
    whose end W&B alerts of; 0 for a run that is sent later. watched: number of its process.
    """

    def __init__(self, folder: Path, mode: WandbMode, attempt: int = 0, watched: int = 0) -> None:
        self._folder, self._mode = folder, mode
        self._attempt, self._watched = attempt, watched
        self._tail, self._events = Tail(folder / "metrics.jsonl"), Events(folder)
        self.sent = read_sent(folder)
        write_sent(folder, self.sent)  # its id stays, whatever happens next
        self._run: Any = None

    def catch_up(self) -> int:
        """Send the records that are new; return how many. Raises Broken."""
        count, records = 0, self._tail.read()
        if records:  # an incident is written before the row of its step: read in this order
            self._events.read()
        for record in records:
            self._try(_nothing)  # a run that is open knows what its server holds
            if not self.sent.knows(record):
                counts = self._events.counts(record["step"])
                self._try(partial(_log, record["step"], numbers(record) | counts))
                self.sent.note(record)
                count += 1
        if count:
            write_sent(self._folder, self.sent)
        return count

    def finish(self) -> None:
        """Send the rest and, where there is one, the result or an alert; then close."""
        self.catch_up()
        self._events.read()
        result = read_object(self._folder / "result.json").values
        if self._run is not None or result:
            told = {"events/last": masked(self._events.last, os.environ)} | self._events.counts()
            self._try(partial(_summarise, numbers(result) | told))
        alert = ending_of(self._folder, self._attempt) if self._attempt else None
        if alert is not None:
            self._try(partial(_alert, alert))
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
        content = read_object(self._folder / "config.yaml")
        if not content.exists or content.problem:
            raise ValueError(content.problem or "config.yaml: is missing")
        config = masked_in(content.values, os.environ)
        said = config.get("log") or {}
        about = About(
            name=self._folder.resolve().name,
            project=said.get("project") or "kinescale",
            group=said.get("group") or "",
            job_type=said.get("job_type") or config.get("kind") or "",
            tags=said.get("tags") or (),
            config=config | _where(self._folder),
            id=self.sent.id,
            watched=self._watched,
        )
        run = start_wandb(about, self._mode, self._folder)
        self.sent.offline = self._mode is WandbMode.offline
        if not self.sent.offline:
            self.sent.at(run.step)
        return run


def _nothing(run: Any) -> None:
    pass


def _log(step: int, row: dict[str, float], run: Any) -> None:
    # W&B's own step is ours too: records of one step share a row, and none comes twice.
    run.log(row, step=step)


def _summarise(values: dict[str, Any], run: Any) -> None:
    run.summary.update(values)


def _alert(alert: Alert, run: Any) -> None:
    run.alert(title=alert.title, text=masked(alert.text, os.environ), level="ERROR")


def _close(run: Any) -> None:
    run.finish()


class Broken(RuntimeError):
    """The other side does not take what is sent: a server, W&B's service, or the disk."""


class Follower(Protocol):
    """Something that is kept up with a run folder."""

    def catch_up(self) -> int:
        """Take what is new; return how much."""

    def finish(self) -> None:
        """Take the rest: the attempt is over."""


def follow(follower: Follower, wait: Callable[[float], bool], seconds: float = 1.0) -> None:
    """Take what is new every ``seconds`` until ``wait`` says that the attempt is over."""
    while not wait(seconds):
        follower.catch_up()
    follower.finish()


def _where(folder: Path) -> dict[str, Any]:
    """Return the job and the commit, for the W&B run's config."""
    about = {name.lower(): os.environ[name] for name in _SLURM if name in os.environ}
    if git := read_object(folder / "env.json").values.get("git"):
        about["commit"] = git
    return about
