"""The training loop of the small networks beside the diffusion transformer, on plain torch.

The video compression network, its perceptual encoder and the captioner are small: every process
holds all of one, and gradients are summed over the processes. What a run promises is the same as
that of the large loop: planned steps, a loss that is a ratio of global sums, exact resume, atomic
checkpoints, a result file. A step's micro-batch is all that a process holds of it.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.files import write_json
from data.loading.batch import Step
from trainer.checkpoint.read import Loaded, load_latest
from trainer.checkpoint.write import open_writer
from trainer.config import CheckpointConfig
from trainer.layout.plan import Fragment
from trainer.optim import gamma_of, learning_rate
from trainer.optim_config import AdamConfig
from trainer.parallel.mesh import Mesh, alone
from trainer.run.metrics import MetricsFile
from trainer.run.pace import Pace
from trainer.run.session import SaveClock, Session
from trainer.run.speed import Speed

log = logging.getLogger(__name__)
B = TypeVar("B")


@dataclass(frozen=True)
class Term:
    """One term of a loss: ``weight`` times the ratio of sums over all processes.

    numerator: this process's sum, with its graph; denominator: what it is a sum over, a count.
    A term of weight 0 is only reported.
    """

    name: str
    numerator: Tensor
    denominator: float
    weight: float = 1.0


class Steps(Protocol):
    """Planned steps that can be resumed; ``data.loading.loader.Loader`` is one."""

    def next_step(self) -> Step:
        """Return the next step, with this process's packs."""

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON state after the last returned step, equal on all processes."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the step at which the state was taken."""


@dataclass
class SmallProgress:
    """What a run has done so far; saved with every checkpoint."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    attempts: int = 0


class SmallTraining(Generic[B]):
    """One small network's run in one process: build or resume, then :meth:`run`.

    module: initialised from the run's seed; its parameters that need gradients are trained and
        saved, nothing else of it is. A checkpoint in ``folder`` replaces their values.
    prepare: step -> batch, on the module's device; all its draws by ``trainer.rng``.
    loss: (module, batch) -> terms, the same names in the same order on every process.
    steps: optimizer steps of the whole run.
    finish: called on every process after the last step with averaged weights in the module;
        what it returns is added to ``result.json``, its ``loss`` on held-out clips among it.
    """

    def __init__(
        self,
        module: nn.Module,
        loader: Steps,
        prepare: Callable[[Step], B],
        loss: Callable[[nn.Module, B], list[Term]],
        optim: AdamConfig,
        steps: int,
        folder: Path,
        finish: Callable[[nn.Module], dict[str, Any]] | None = None,
        checkpoint: CheckpointConfig | None = None,
        log_every: int = 10,
        mesh: Mesh | None = None,
    ) -> None:
        self.module, self.loader, self.folder = module, loader, folder
        self.steps, self.progress = steps, SmallProgress()
        self.mesh = mesh or alone()
        assert self.mesh.layout.dp == self.mesh.world, "small networks know data parallelism only"
        self._prepare, self._loss, self._finish = prepare, loss, finish
        self._optim, self._log_every = optim, log_every
        self._policy = checkpoint or CheckpointConfig()
        self._params = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._average = {n: p.detach().clone() for n, p in self._params.items()}
        self._gamma = gamma_of(optim.ema_sigma)
        self._optimizer = _adamw(self._params, optim)
        self._sums: dict[str, list[float]] = {}  # name -> numerator, denominator since the last log
        self._saves = SaveClock(self._policy)

    def run(self, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train to the end; return the result, or None when a signal stopped it early (and saved).

        A finished run is not repeated. Raises ValueError where another process trains it, or when
        the loss stops being a number.
        """
        result = self.folder / "result.json"
        if result.exists():
            return json.loads(result.read_text())
        with ExitStack() as stack:
            session = Session.take(self.folder, self.mesh)
            stack.callback(session.release)
            self._writer = open_writer(session, self.mesh, self._policy)
            self._resume(session.attempt)
            if self.mesh.is_main:
                self._metrics = MetricsFile(self.folder / "metrics.jsonl", self.progress.step)
                stack.callback(self._metrics.close)
            if not self._train(should_stop):
                session.mark_stopped(self.progress.step)
                return None
            self._save()
            if self._writer.wait() is None:
                raise OSError(f"run={self.folder}: its last checkpoint could not be written.")
            return self._conclude()

    def _train(self, should_stop: Callable[[], bool]) -> bool:
        progress = self.progress
        self._pace = Pace(progress.step, self.steps)
        self._speed = Speed(progress.step, progress.seconds, samples=progress.samples)
        while self.progress.step < self.steps:
            stop, save, norm, lr = self._step(should_stop)
            step = self.progress.step
            if step % self._log_every == 0 or step == self.steps:
                self._log(norm, lr)
            if (stop or save) and step < self.steps:
                self._save()
            if stop and step < self.steps:
                self._writer.wait()
                return False
        return True

    def _step(self, should_stop: Callable[[], bool]) -> tuple[bool, bool, float, float]:
        """Do one optimizer step; return the agreed flags (stop, save), gradient norm and rate."""
        started, done = time.monotonic(), self.progress.step
        planned = self.loader.next_step()
        terms = self._loss(self.module, self._prepare(planned))
        numerators = [float(term.numerator.detach()) for term in terms]
        save = self.mesh.is_main and self._saves.due(done)
        summed = self.mesh.sum(
            *numerators, *(term.denominator for term in terms), should_stop(), save
        )
        count = len(terms)
        totals = list(zip(summed[:count], summed[count : 2 * count], strict=True))
        loss = sum(t.weight * n / max(d, 1e-9) for t, (n, d) in zip(terms, totals, strict=True))
        if not math.isfinite(loss):
            raise ValueError(
                f"optim.lr={self._optim.lr}: the loss of step {done + 1} is {loss}. Use a lower "
                "rate; the run resumes from its last checkpoint."
            )
        norm = self._backward(terms, [d for _, d in totals])
        lr = learning_rate(self._optim, done, self.steps)
        self._update(norm, lr)
        for term, (numerator, denominator) in zip(terms, totals, strict=True):
            sums = self._sums.setdefault(term.name, [0.0, 0.0, term.weight])
            sums[0] += numerator
            sums[1] += denominator
            sums[2] = term.weight
        self.progress.samples += sum(len(pack) for pack in planned.plan)
        self.progress.seconds += time.monotonic() - started
        return summed[-2] > 0, summed[-1] > 0, norm, lr

    def _backward(self, terms: list[Term], denominators: list[float]) -> float:
        """Leave the gradient of the global loss in every parameter; return its norm."""
        self._optimizer.zero_grad(set_to_none=True)
        parts = [
            term.weight / max(denominator, 1e-9) * term.numerator
            for term, denominator in zip(terms, denominators, strict=True)
            if term.weight and term.numerator.requires_grad
        ]
        if parts:  # a process whose pack could not be read has none
            torch.stack([part.reshape(()) for part in parts]).sum().backward()
        params = list(self._params.values())
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in params]
        )
        if self.mesh.world > 1:
            dist.all_reduce(flat)
        for param, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
            param.grad = grad.view_as(param)
        return float(flat.double().norm())

    def _update(self, norm: float, lr: float) -> None:
        clip = self._optim.clip
        if clip and norm > clip:
            for param in self._params.values():
                assert param.grad is not None
                param.grad.mul_(clip / norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.progress.step += 1
        decay = (1.0 - 1.0 / self.progress.step) ** (self._gamma + 1.0)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.values()), list(self._params.values()), 1.0 - decay
            )

    def _log(self, norm: float, lr: float) -> None:
        """Write the terms since the last line, each a ratio of sums, and now and then print it."""
        means = {name: n / max(d, 1e-9) for name, (n, d, _) in self._sums.items()}
        loss = sum(means[name] * weight for name, (_, _, weight) in self._sums.items())
        self._sums = {}
        if not self.mesh.is_main:
            return
        progress = self.progress
        record = {"step": progress.step, "train_loss": loss, **means, "grad_norm": norm, "lr": lr}
        record |= {"samples": progress.samples, "seconds": round(progress.seconds, 3)}
        record |= self._speed.look(progress.step, progress.seconds, samples=progress.samples)
        self._metrics.write(record)
        if self._pace.due(progress.step):
            shown = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
            rate = f"{self._pace.rate(progress.step):.2f} steps/s"
            self._pace.tell(progress.step, f"loss {loss:.4f}  {shown}  lr {lr:.2e}  {rate}")

    def _save(self) -> None:
        """Start to write a checkpoint of this moment; the main process holds all of it."""
        fragments = []
        for name, param in self._params.items():
            state = self._optimizer.state[param]
            zeros = torch.zeros_like(param)
            tensors = {
                "param": param.detach(),
                "exp_avg": state.get("exp_avg", zeros),
                "exp_avg_sq": state.get("exp_avg_sq", zeros),
                "ema": self._average[name],
            }
            fragments.append(Fragment(name, 0, tensors))
        about = {
            "progress": asdict(self.progress),
            "loader": self.loader.state_dict(),
            "sums": self._sums,
        }
        self._writer.save(self.progress.step, fragments if self.mesh.is_main else [], about)
        self._saves.reset()

    def _resume(self, attempt: int) -> None:
        loaded = load_latest(self.folder / "checkpoints", self.mesh)
        if loaded is not None:
            self.progress = SmallProgress(**loaded.state["progress"])
            self._sums = loaded.state["sums"]
            self.loader.load_state_dict(loaded.state["loader"])
            self._fill(loaded)
            log.info("resumed from %s", loaded.folder)
        self.progress.attempts = attempt

    def _fill(self, loaded: Loaded) -> None:
        shapes = {name: tuple(p.shape) for name, p in self._params.items()}
        kinds = ("param", "exp_avg", "exp_avg_sq", "ema")
        found = {kind: loaded.tensors(kind, shapes) for kind in kinds}
        for name, param in self._params.items():
            param.data.copy_(found["param"][name])
            self._average[name].copy_(found["ema"][name])
            self._optimizer.state[param] = {
                "step": torch.tensor(float(self.progress.step), device=param.device),
                "exp_avg": found["exp_avg"][name].to(param.device),
                "exp_avg_sq": found["exp_avg_sq"][name].to(param.device),
            }

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Put the averaged weights into the module for a while."""
        kept = {name: p.detach().clone() for name, p in self._params.items()}
        with torch.no_grad():
            for name, param in self._params.items():
                param.copy_(self._average[name])
            try:
                yield self.module
            finally:
                for name, param in self._params.items():
                    param.copy_(kept[name])

    def _conclude(self) -> dict[str, Any]:
        """Call ``finish`` on the averaged weights and write the result."""
        with self.averaged() as module:
            found = self._finish(module) if self._finish is not None else {}
        params = sum(p.numel() for p in self._params.values())
        done = asdict(self.progress)
        result = {"name": self.folder.name, "status": "finished", "params": params}
        result |= {"steps": done.pop("step")} | done | found
        if self.mesh.is_main:
            write_json(self.folder / "result.json", result)
        return result


def _adamw(params: dict[str, nn.Parameter], optim: AdamConfig) -> torch.optim.AdamW:
    """Return AdamW; only matrices and kernels decay."""
    groups = [
        {"params": [p for p in params.values() if p.dim() > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in params.values() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    betas = (optim.beta1, optim.beta2)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=betas, eps=optim.eps, fused=True)
