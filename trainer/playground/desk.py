"""What is asked to be drawn: one request at a time through several runs, while a page looks on."""

import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from models.network import Network
from trainer.config import RunConfig, load_run
from trainer.generate.generate import facts_of, keep, load_model, warnings_of
from trainer.generate.request import Format, Request, Task
from trainer.generate.sampler import draw_clips
from trainer.generate.tasks import trimmed

MODELS = 8  # that are kept loaded
JOBS = 50  # that are remembered; files stay


@dataclass(frozen=True)
class Rung:
    """A run that may be drawn with. name: that of its folder. title, note: what is said of it."""

    name: str
    folder: Path
    title: str
    note: str


class State(StrEnum):
    """Where a drawing stands."""

    waiting = "waiting"
    loading = "loading"
    drawing = "drawing"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


ENDS = (State.done, State.failed, State.cancelled)


@dataclass
class Drawing:
    """One run's clip: how far it is, what was wrong, and its files by format."""

    rung: str
    state: State = State.waiting
    share: float = 0.0
    eta_seconds: float | None = None
    seconds: float = 0.0
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """A request and its drawings. version: rises with every change."""

    id: str
    request: Request
    drawings: list[Drawing]
    version: int = 0
    cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return all(drawing.state in ENDS for drawing in self.drawings)


class _Cancelled(Exception):
    pass


class Desk:
    """Takes requests and draws them in turn, in a thread of its own. out: where clips are kept."""

    def __init__(
        self, rungs: Sequence[Rung], out: Path, device: torch.device | None = None
    ) -> None:
        self.rungs = {rung.name: rung for rung in rungs}
        self.out = out
        self._device = device
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._load = lru_cache(maxsize=MODELS)(self._loaded)
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def ask(self, request: Request, rungs: Sequence[str]) -> Job:
        """Queue a request; return its job.

        Raises ValueError on rungs that are none, and on what a run's codec cannot make.
        """
        if not rungs:
            raise ValueError("rungs=[]: must name one model at least. Tick one.")
        for name in rungs:
            if name not in self.rungs:
                raise ValueError(f"rungs={name}: is none of {', '.join(self.rungs)}. Name one.")
            check_shape(load_run(self.rungs[name].folder), request)
        with self._changed:
            number = 1 + max((int(name) for name in self._jobs), default=self._last_kept())
            job = Job(f"{number:04d}", request, [Drawing(name) for name in rungs])
            self._jobs[job.id] = job
            for old in [name for name, one in self._jobs.items() if one.is_over][:-JOBS]:
                del self._jobs[old]
        self._queue.put(job)
        return job

    def look(self, name: str, seen: int = -1, seconds: float = 0.0) -> dict[str, Any] | None:
        """Return a job as plain values once it has changed since ``seen``; None where none is."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                return None
            self._changed.wait_for(lambda: job.version > seen or job.is_over, seconds)
            drawings = [asdict(drawing) for drawing in job.drawings]
            return {
                "id": job.id, "version": job.version, "over": job.is_over, "drawings": drawings,
                "prompt": job.request.prompt, "task": job.request.task.value,
                "seed": job.request.seed, "shape": list(job.request.shape),
            }  # fmt: skip

    def cancel(self, name: str) -> None:
        """End a job; what is drawn already stays."""
        with self._changed:
            if (job := self._jobs.get(name)) is not None:
                job.cancelled = True

    def close(self) -> None:
        """End the thread, and the job that it draws."""
        for name in list(self._jobs):
            self.cancel(name)
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _last_kept(self) -> int:
        """Return the last number among what an earlier desk kept."""
        names = [path.name for path in self.out.iterdir()] if self.out.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def _loaded(self, folder: Path) -> tuple[RunConfig, Network, dict[str, str]]:
        run, model = load_model(folder, self._device)
        return run, model, facts_of(run, model)

    def _tell(self, job: Job, drawing: Drawing, **values: Any) -> None:
        with self._changed:
            for key, value in values.items():
                setattr(drawing, key, value)
            job.version += 1
            self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            for drawing in job.drawings:
                try:
                    self._draw(job, drawing)
                except _Cancelled:
                    self._tell(job, drawing, state=State.cancelled)
                except (ValueError, OSError) as error:
                    self._tell(job, drawing, state=State.failed, error=str(error))
                except Exception as error:  # noqa: BLE001 - the page goes on, the terminal says why
                    traceback.print_exc(file=sys.stderr)
                    self._tell(job, drawing, state=State.failed, error=in_words(error))

    def _draw(self, job: Job, drawing: Drawing) -> None:
        if job.cancelled:
            raise _Cancelled
        self._tell(job, drawing, state=State.loading)
        rung, started = self.rungs[drawing.rung], time.monotonic()
        run, model, facts = self._load(rung.folder)
        first = Format.png if job.request.num_frames == 1 else Format.mp4
        also = [] if first is Format.png else [Format.gif, Format.png]
        file = self.out / job.id / f"{rung.name}.{first.value}"
        request = trimmed(replace(job.request, out=str(file), also=also), run.codec.stride[0])
        self._tell(job, drawing, state=State.drawing, warnings=list(warnings_of(run, [request])))

        def told(done: float, total: float) -> None:
            if job.cancelled:
                raise _Cancelled
            share, spent = done / total, time.monotonic() - started
            self._tell(job, drawing, share=share, eta_seconds=spent * (1 - share) / share)

        (frames,) = draw_clips(run, model, [request], told=told, device=self._device)
        keep(request, frames, facts)
        files = {path.suffix[1:]: path.name for path in request.files}
        files["json"] = f"{file.name}.json"
        seconds = time.monotonic() - started
        self._tell(job, drawing, state=State.done, share=1.0, files=files, seconds=seconds)


def check_shape(run: RunConfig, request: Request) -> None:
    """Raise ValueError on a shape that a run's codec cannot make."""
    shape = trimmed(replace(request), run.codec.stride[0]).shape
    if request.task is not Task.loop:
        run.codec.latent_shape(*shape)


def in_words(error: Exception) -> str:
    """Return what a page says of an error that is no mistake of who asked."""
    text = str(error)
    if isinstance(error, MemoryError) or "memory" in text:
        return "There is not enough memory for that. Ask for fewer frames, or a smaller size."
    return f"{type(error).__name__}: {text}. The terminal of the playground says more."
