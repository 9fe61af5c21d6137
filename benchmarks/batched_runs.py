"""Several runs of one shape as one: stacked parameters under torch.func.vmap, one pass for all.

usage: python -m benchmarks.batched_runs FOLDER RUN_FOLDER [RUN_FOLDER ...]

Trains frozen runs that differ in the learning rate alone, and so see the same packs and noise, and
writes each one's loss to its result.json and a mark to FOLDER. It is what ``benchmarks.many_runs``
compares with the trainer: the same loader, noise, clipping, schedule, average and validation, but
no checkpoints, metrics, signals or faults. Why the launcher does not use it: docs/decisions/008.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from data.loading.loader import Loader
from models.attention import attend_segments
from models.config import ModelConfig
from models.dit.model import DiT
from models.network import initial_values
from models.objectives.flow import flow_errors
from models.pack import Ragged, TokenPack
from models.roles import role_groups
from trainer.config import RunConfig, load_run
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Validator
from trainer.diffusion.horizon import plan_horizon
from trainer.diffusion.loop import _init_generator
from trainer.diffusion.micro_batch import MicroBatch, prepare
from trainer.identity import identity
from trainer.layout.optimizer import OptimizerKind
from trainer.optim import gamma_of, learning_rate
from trainer.optim_config import OptimConfig
from trainer.parallel.mesh import alone


class _Folded(torch.autograd.Function):
    """Attention whose models are folded into heads under vmap.

    torch has no batching rule for its attention on CPU, and would loop over the models. Outside of
    vmap it has no backward pass, and needs none: validation alone calls it there.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged) -> Tensor:
        return attend_segments(q, k, v, queries, keys)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        models, (queries, keys) = info.batch_size, inputs[3:]
        q, k, v = (
            x.movedim(dim, 1).flatten(1, 2)  # (S, R N, E)
            for x, dim in zip(inputs[:3], in_dims[:3], strict=True)
        )
        return attend_segments(q, k, v, queries, keys).unflatten(1, (models, -1)), 1


def attend_stacked(q: Tensor, k: Tensor, v: Tensor, queries: Ragged, keys: Ragged) -> Tensor:
    """Attend as ``models.attention.attend_segments``; under vmap for all models at once."""
    return _Folded.apply(q, k, v, queries, keys)


class Stacked:
    """R models of one shape with AdamW, all parameters of all models in one tensor (R, P).

    optims: one for each model; they may differ in ``lr``.
    values: initial values of every model, by name.
    """

    def __init__(
        self, model: ModelConfig, optims: Sequence[OptimConfig], values: Mapping[str, Tensor]
    ) -> None:
        self.optims, self._updates = list(optims), 0
        with torch.device("meta"):
            self._blueprint = DiT(model, attend_stacked)
        self._buffers = dict(DiT(replace(model, depth=1)).named_buffers())
        self._shapes = {name: p.shape for name, p in self._blueprint.named_parameters()}
        sizes = [shape.numel() for shape in self._shapes.values()]
        ends = list(accumulate(sizes))
        self._spans = dict(zip(self._shapes, zip([0, *ends], ends, strict=False), strict=True))
        row = torch.cat([values[name].flatten() for name in self._shapes])
        self.flat = row.repeat(len(self.optims), 1)
        self.average, self._mean = self.flat.clone(), torch.zeros_like(self.flat)
        self._square, self._gradient = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._scale, self._decays = self._roles(model)
        self.parameters = {name: p.requires_grad_() for name, p in self.views(self.flat).items()}
        self._gradients = list(self.views(self._gradient).values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return (..., P) as the parameters it holds, by name."""
        return {
            name: flat[..., first:last].detach().unflatten(-1, self._shapes[name])
            for name, (first, last) in self._spans.items()
        }

    def _roles(self, model: ModelConfig) -> tuple[Tensor, Tensor]:
        """Return each parameter's multiplier of the rate and of the weight decay (P,)."""
        scale, decays = torch.ones(self.flat.shape[1]), torch.zeros(self.flat.shape[1])
        for group in role_groups(self._blueprint, model):
            for name in group.names:
                first, last = self._spans[name]
                scale[first:last], decays[first:last] = group.lr_scale, float(group.decay)
        return scale, decays

    def errors(self, parameters: Mapping[str, Tensor], batch: MicroBatch) -> Tensor:
        """Return one model's squared error of each token (S,)."""

        def network(pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
            return functional_call(self._blueprint, {**parameters, **self._buffers}, (pack, x_t, t))

        return flow_errors(network, batch.pack, batch.x_0, batch.t)

    def accumulate(self, batches: Sequence[MicroBatch], values: float) -> Tensor:
        """Add up gradients of a step's packs; return each model's loss (R,)."""
        self._gradient.zero_()
        total = torch.zeros(len(self.flat), dtype=torch.float64)
        for batch in batches:
            errors = vmap(lambda p, b=batch: self.errors(p, b).sum())(self.parameters)
            leaves = list(self.parameters.values())
            torch._foreach_add_(self._gradients, torch.autograd.grad(errors.sum() / values, leaves))
            total += errors.detach()
        return total / values

    @torch.no_grad()
    def update(self, lrs: Sequence[float]) -> None:
        """Clip each model by its own norm, then AdamW and the average (trainer/diffusion/ema)."""
        optim, gradient = self.optims[0], self._gradient
        self._updates += 1
        if optim.clip > 0:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient.mul_((optim.clip / (norm + 1e-6)).clamp(max=1.0))
        rates = torch.tensor(list(lrs)).unsqueeze(1) * self._scale  # (R, P)
        if optim.weight_decay:
            self.flat.mul_(1 - rates * (optim.weight_decay * self._decays))
        self._mean.lerp_(gradient, 1 - optim.beta1)
        self._square.mul_(optim.beta2).addcmul_(gradient, gradient, value=1 - optim.beta2)
        first, second = (1 - beta**self._updates for beta in (optim.beta1, optim.beta2))
        spread = (self._square.sqrt() / second**0.5).add_(optim.eps)
        self.flat.sub_((self._mean / spread).mul_(rates / first))
        decay = (1.0 - 1.0 / self._updates) ** (gamma_of(optim.ema_sigma) + 1.0)
        self.average.lerp_(self.flat, 1.0 - decay)


def check_alike(runs: Sequence[RunConfig]) -> None:
    """Raise ValueError for runs that differ in more than the learning rate, or learn by Muon."""
    for run in runs:
        if run.optim.kind is not OptimizerKind.adamw:
            raise ValueError(
                f"optim.kind={run.optim.kind}: runs of one step learn by AdamW. Train "
                f"{run.name} by itself."
            )
    alike = [identity(replace(run, optim=replace(run.optim, lr=1.0))) for run in runs]
    for run, found in zip(runs, alike, strict=True):
        wrong = [key for key in found if found[key] != alike[0][key]]
        if wrong:
            raise ValueError(
                f"{wrong[0]} of {run.name}: must equal that of {runs[0].name}: runs of one step "
                "may differ in optim.lr alone. Train it by itself."
            )


def train(runs: Sequence[RunConfig]) -> list[float]:
    """Train runs to their horizon; return each one's validation loss of averaged weights."""
    check_alike(runs)
    run, mesh = runs[0], alone()
    loader = Loader(run.data, run.data.train_split, run.cell, run.seed, 0, 1)
    try:
        steps = plan_horizon(run, loader.infos, loader.dataset.spans).steps
        values = dict(initial_values(run.model, _init_generator(run.seed)))
        stacked = Stacked(run.model, [other.optim for other in runs], values)
        collator = Collator(run.codec, run.text)
        for step in range(steps):
            packs = [pack for pack in loader.next_step().packs if pack.samples]
            batches = [prepare(pack, run, collator, mesh) for pack in packs]
            stacked.accumulate(batches, float(sum(batch.values for batch in batches)))
            stacked.update([learning_rate(other.optim, step, steps) for other in runs])
    finally:
        loader.close()
    validator = Validator(run, run.validation.splits[0], collator, mesh, run.validation.samples)

    @torch.no_grad()
    def loss(parameters: Mapping[str, Tensor]) -> float:
        return validator.measure_by(
            lambda found: [stacked.errors(parameters, b) for b in found]
        ).loss

    return [loss(stacked.views(row)) for row in stacked.average]


def main(argv: list[str]) -> int:
    """Train the runs of the given folders together."""
    if len(argv) < 2 or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    mark, *folders = map(Path, argv)
    try:
        losses = train([load_run(folder) for folder in folders])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for folder, loss in zip(folders, losses, strict=True):
        (folder / "result.json").write_text(json.dumps({"status": "finished", "loss": loss}))
    mark.mkdir(parents=True, exist_ok=True)
    (mark / "result.json").write_text(json.dumps({"runs": [folder.name for folder in folders]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
