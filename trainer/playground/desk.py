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
TICKETS = 50  # that are remembered; files stay


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
class Ticket:
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
        self._tickets: dict[str, Ticket] = {}
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._load = lru_cache(maxsize=MODELS)(self._loaded)
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    def ask(self, request: Request, rungs: Sequence[str]) -> Ticket:
        """Queue a request; return its ticket.

        Raises ValueError on rungs that are none, and on what a run's codec cannot make.
        """
        if not rungs:
            raise ValueError("rungs=[]: must name one model at least. Tick one.")
        for name in rungs:
            if name not in self.rungs:
                raise ValueError(f"rungs={name}: is none of {', '.join(self.rungs)}. Name one.")
            check_shape(load_run(self.rungs[name].folder), request)
        with self._changed:
            number = 1 + max((int(name) for name in self._tickets), default=self._last_kept())
            ticket = Ticket(f"{number:04d}", request, [Drawing(name) for name in rungs])
            self._tickets[ticket.id] = ticket
            for old in [name for name, one in self._tickets.items() if one.is_over][:-TICKETS]:
                del self._tickets[old]
        self._queue.put(ticket)
        return ticket

    def look(self, name: str, seen: int = -1, seconds: float = 0.0) -> dict[str, Any] | None:
        """Return a ticket as plain values once it is newer than ``seen``; None where none is."""
        with self._changed:
            ticket = self._tickets.get(name)
            if ticket is None:
                return None
            self._changed.wait_for(lambda: ticket.version > seen or ticket.is_over, seconds)
            drawings = [asdict(drawing) for drawing in ticket.drawings]
            return {
                "id": ticket.id, "version": ticket.version, "over": ticket.is_over,
                "drawings": drawings,
                "prompt": ticket.request.prompt, "task": ticket.request.task.value,
                "seed": ticket.request.seed, "shape": list(ticket.request.shape),
            }  # fmt: skip

    def cancel(self, name: str) -> None:
        """End a ticket; what is drawn already stays."""
        with self._changed:
            if (ticket := self._tickets.get(name)) is not None:
                ticket.cancelled = True

    def close(self) -> None:
        """End the thread, and the ticket that it draws."""
        for name in list(self._tickets):
            self.cancel(name)
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _last_kept(self) -> int:
        """Return the last number among what an earlier desk kept."""
        names = [path.name for path in self.out.iterdir()] if self.out.is_dir() else []
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def _loaded(self, folder: Path) -> tuple[RunConfig, Network, dict[str, str]]:
        run, model = load_model(folder, self._device)
        return run, model, facts_of(run, sorted(model.named_parameters()))

    def _tell(self, ticket: Ticket, drawing: Drawing, **values: Any) -> None:
        with self._changed:
            for key, value in values.items():
                setattr(drawing, key, value)
            ticket.version += 1
            self._changed.notify_all()

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            for drawing in ticket.drawings:
                try:
                    self._draw(ticket, drawing)
                except _Cancelled:
                    self._tell(ticket, drawing, state=State.cancelled)
                except (ValueError, OSError) as error:
                    self._tell(ticket, drawing, state=State.failed, error=str(error))
                except Exception as error:  # noqa: BLE001 - the page goes on, the terminal says why
                    traceback.print_exc(file=sys.stderr)
                    self._tell(ticket, drawing, state=State.failed, error=in_words(error))

    def _draw(self, ticket: Ticket, drawing: Drawing) -> None:
        if ticket.cancelled:
            raise _Cancelled
        self._tell(ticket, drawing, state=State.loading)
        rung, started = self.rungs[drawing.rung], time.monotonic()
        run, model, facts = self._load(rung.folder)
        first = Format.png if ticket.request.num_frames == 1 else Format.mp4
        also = [] if first is Format.png else [Format.gif, Format.png]
        file = self.out / ticket.id / f"{rung.name}.{first.value}"
        request = trimmed(replace(ticket.request, out=str(file), also=also), run.codec.stride[0])
        self._tell(ticket, drawing, state=State.drawing, warnings=list(warnings_of(run, [request])))

        def told(done: float, total: float) -> None:
            if ticket.cancelled:
                raise _Cancelled
            share, spent = done / total, time.monotonic() - started
            self._tell(ticket, drawing, share=share, eta_seconds=spent * (1 - share) / share)

        (frames,) = draw_clips(run, model, [request], told=told, device=self._device)
        keep(request, frames, facts)
        files = {path.suffix[1:]: path.name for path in request.files}
        files["json"] = f"{file.name}.json"
        seconds = time.monotonic() - started
        self._tell(ticket, drawing, state=State.done, share=1.0, files=files, seconds=seconds)


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
