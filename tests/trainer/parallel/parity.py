"""What parity is measured on: one case is one layout, trained for five steps."""

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import trainer.diffusion.micro_batch
from data.loading.loader import Loader
from models.architecture import Specification, specification_of
from models.attention import attend_segments
from models.network import initial_values
from models.objective import build_objective
from models.tasks import Task
from trainer.config import RunConfig
from trainer.diffusion.collate import Collator
from trainer.diffusion.ema import PowerEma
from trainer.diffusion.evaluate import Validator
from trainer.diffusion.loop import _init_generator
from trainer.diffusion.micro_batch import accumulate, measure, prepare
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import start_mesh, stop_mesh
from trainer.rng import normal

from ..conftest import compose_smoke

STEPS, RATE = 5, 1e-2


@dataclass(frozen=True)
class Case:
    """A layout with its ZeRO stage, packs a rank and step, and further overrides.

    mistake: "" or a fault to put in, which the comparison must see. architecture: of the network;
    optimizer: its kind.
    mixed: whether clips are used for all tasks, so that segments have several spans.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    zero: int = 0
    accumulation: int = 1
    interleave: int = 1
    extra: str = ""
    mistake: str = ""
    architecture: str = "dit"
    optimizer: str = "adamw"
    mixed: bool = False

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.tp * self.cp * self.pp * self.dp

    @property
    def packs(self) -> int:
        """Packs of a step over all ranks."""
        return self.dp * self.accumulation

    @property
    def layout(self) -> str:
        """Readable name of the axes."""
        axes = [(a, getattr(self, a)) for a in ("tp", "cp", "pp", "dp")]
        return " ".join(f"{a}{size}" for a, size in axes if size > 1) or "single"

    @property
    def name(self) -> str:
        """A name for files and test reports."""
        parts = [
            self.layout.replace(" ", "-"),
            f"zero{self.zero}",
            f"accumulate{self.accumulation}",
        ]
        parts += [f"interleave{self.interleave}"] if self.interleave > 1 else []
        parts += [self.architecture] if self.architecture != "dit" else []
        parts += [self.optimizer] if self.optimizer != "adamw" else []
        parts += ["mixed"] if self.mixed else []
        parts += [p for p in (self.extra.replace("parallel.", ""), self.mistake) if p]
        return "-".join(parts)

    @property
    def reference(self) -> "Case":
        """The same steps in one process."""
        return Case(
            accumulation=self.packs,
            architecture=self.architecture,
            optimizer=self.optimizer,
            mixed=self.mixed,
        )


def all_cases() -> list[Case]:
    """Return every layout of {1, 2}^4 on up to 8 processes, with every ZeRO stage it allows."""
    cases = []
    for tp, cp, pp, dp in product((1, 2), repeat=4):
        if 1 < tp * cp * pp * dp <= 8:
            stages = (0, 1, 2) if pp > 1 else (0, 1, 2, 3)
            cases += [
                Case(tp, cp, pp, dp, zero, accumulation)
                for zero, accumulation in product(stages, (1, 4))
            ]
    return cases


def few_cases() -> list[Case]:
    """Return every layout once, the ZeRO stages and accumulations taking turns."""
    layouts: dict[str, list[Case]] = {}
    for case in all_cases():
        layouts.setdefault(case.layout, []).append(case)
    return [cases[5 * i % len(cases)] for i, cases in enumerate(layouts.values())]


SPECIAL = [
    Case(pp=2, zero=1, accumulation=4, interleave=2),
    Case(tp=2, pp=2, dp=2, zero=2, accumulation=4, interleave=2),
    Case(tp=2, cp=2, zero=1, extra="parallel.recompute=full"),
    Case(tp=2, cp=2, zero=2, extra="parallel.recompute=selective"),
    Case(pp=2, dp=2, zero=1, accumulation=4, extra="parallel.recompute=full"),
    Case(dp=2, zero=3, extra="parallel.recompute=full"),
    Case(dp=2, zero=1, extra="parallel.offload=true"),
    Case(tp=2, dp=2, zero=2, extra="parallel.offload=true"),
    Case(cp=2, zero=3, extra="parallel.offload=true"),
    Case(cp=2, zero=1, extra="parallel.head_ranks=1"),
    Case(tp=2, cp=2, zero=1, extra="parallel.head_ranks=1 parallel.recompute=full"),
    Case(tp=2, cp=2, zero=2, extra="parallel.head_ranks=1 parallel.recompute=selective"),
    Case(cp=4, zero=3, accumulation=4, extra="parallel.head_ranks=2"),
    Case(cp=8, zero=2),
    Case(cp=4, pp=2, zero=1, accumulation=4, extra="parallel.head_ranks=2"),
]
REDUCED = [
    Case(dp=2, zero=1, accumulation=4, extra="parallel.reduce_scatter=true"),
    Case(tp=2, dp=2, zero=2, accumulation=4, extra="parallel.reduce_scatter=true"),
    Case(dp=2, zero=2, optimizer="muon", extra="parallel.reduce_scatter=true"),
    Case(dp=2, zero=2, accumulation=4, extra="parallel.overlap_comm=true"),
    Case(pp=2, dp=2, zero=2, accumulation=4, extra="parallel.overlap_comm=true"),
    Case(cp=2, zero=3, accumulation=4, extra="parallel.overlap_comm=true"),
]
COMPILED = [
    Case(tp=2, zero=1, extra="parallel.compile=true"),
    Case(pp=2, zero=2, accumulation=4, extra="parallel.compile=true parallel.recompute=full"),
    Case(dp=2, zero=3, extra="parallel.compile=true"),
    Case(cp=2, zero=1, extra="parallel.compile=true parallel.recompute=full"),
]
MIXED = [
    Case(tp=2, zero=1, accumulation=2, mixed=True),
    Case(cp=2, zero=2, mixed=True),
    Case(pp=2, zero=1, accumulation=4, interleave=2, mixed=True),
    Case(dp=2, zero=3, mixed=True),
    Case(dp=2, zero=0, mixed=True, extra="parallel.recompute=selective"),
    Case(tp=2, cp=2, pp=2, zero=1, accumulation=2, mixed=True),
    Case(dp=2, zero=1, accumulation=2, mixed=True),
    Case(dp=2, zero=2, mixed=True),
    Case(cp=2, zero=3, mixed=True, extra="parallel.head_ranks=1"),
]
MIXED_LAYOUTS = {case.layout for case in MIXED}
# With spans each layout once, as few_cases() without.
MIXED_REST = [replace(case, mixed=True) for case in few_cases() if case.layout not in MIXED_LAYOUTS]
MISTAKES = [
    Case(dp=2, zero=1, mistake="noise-by-rank"),
    Case(tp=2, zero=1, mistake="noise-by-rank"),
    Case(pp=2, zero=1, mistake="noise-by-rank"),
    Case(dp=2, zero=1, mistake="mean-of-means"),
    Case(cp=2, zero=1, mistake="mean-of-means"),
]


def compose(case: Case, latents: Path) -> RunConfig:
    """Compose the run of a case: four heads to cut, tight packs, clipping in effect.

    Adam's first updates are nearly the sign of the gradient, so that an element whose gradient is
    zero up to rounding moves by the whole learning rate, either way. An eps above the rounding
    makes the movement of the weights a measure of the gradients. The rate is high because a weight
    near one has steps of 1.2e-7: what is compared must move far more than that (see ``_apart``).
    """
    axes = [f"parallel.{a}={getattr(case, a)}" for a in ("tp", "cp", "pp", "interleave")]
    return compose_smoke(
        latents,
        f"data.packs_per_step={case.packs}",
        "data.pack_tokens=256",
        "data.pool=16",
        "model.depth=4",
        "model.head_dim=8",
        "optim.clip=0.5",
        "optim.eps=1e-4",
        f"model.architecture={case.architecture}",
        f"optim.kind={case.optimizer}",
        f"parallel.processes={case.world}",
        f"parallel.zero_stage={case.zero}",
        *axes,
        *case.extra.split(),
        *(
            [f"objective.tasks={{{', '.join(f'{task}: 1' for task in Task)}}}"]
            if case.mixed
            else []
        ),
    )


def start_values(run: RunConfig, names: Collection[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield initial weights, disturbed so that no layer starts at zero and no gradient is near it.

    Names are ignored: all values are yielded.
    """
    generator = torch.Generator().manual_seed(5)
    for name, value in initial_values(run.model, _init_generator(run.seed)):
        yield name, value + 0.05 * torch.randn(value.shape, generator=generator)


def train_cases(cases: list[Case], latents: Path, folder: Path) -> None:
    """Train cases one after another as one rank; leave losses, norms and weights behind."""
    for case in cases:
        _train(case, latents, folder)


def _train(case: Case, latents: Path, folder: Path) -> None:
    run = compose(case, latents)
    mesh = start_mesh(run.parallel)
    if case.mistake == "noise-by-rank":
        trainer.diffusion.micro_batch.normal = _shifted(mesh.rank)  # type: ignore[attr-defined]
    place = mesh.place
    loader = Loader(run.data, "train", run.cell, 0, place.dp, mesh.layout.dp, mesh.peers)
    collator = Collator(run.codec, run.text)
    objective, values = build_objective(run.objective), partial(start_values, run)
    predicts = objective.coefficients
    engine = Engine(run.model, values, run.optim, run.parallel, mesh, attend_segments, predicts)
    ema = PowerEma(engine, 0.1)
    losses, norms = [], []
    for step in range(STEPS):
        batches = [prepare(pack, run, collator, mesh) for pack in loader.next_step().packs]
        own = float(sum(batch.values for batch in batches))
        (values,) = mesh.sum(own if mesh.leads_replica else 0.0)
        denominator = values
        if case.mistake == "mean-of-means":  # every rank divides by what it holds itself
            own_rows = float(sum(batch.pack.valid.sum() for batch in batches))
            denominator = own_rows * mesh.layout.replicas
        errors = accumulate(engine, batches, denominator, objective)
        (error,) = mesh.sum(sum(float(e.sum(dtype=torch.float64)) for e in errors))
        losses.append(error / values)
        norms.append(engine.step(RATE, lambda norm: True))
        ema.update(step + 1)
    engine.check_equal()
    tasks = list(Task) if case.mixed else [Task.text_to_video]
    with engine.weights(ema.average):
        validators = [Validator(run, "val_worlds", collator, mesh, 7, task) for task in tasks]
        each = partial(measure, engine, objective)
        validations = [validator.measure_by(each).loss for validator in validators]
    found = {"losses": losses, "norms": norms, "validations": validations}
    (folder / f"{case.name}-{mesh.rank}.json").write_text(json.dumps(found))
    _save_weights(engine, folder / f"{case.name}-{mesh.rank}.safetensors")
    loader.close()
    stop_mesh(mesh)
    trainer.diffusion.micro_batch.normal = normal  # type: ignore[attr-defined]


def _shifted(rank: int):
    def draw(shape: tuple[int, ...], seed: int, purpose: str, key: str, visit: int) -> Tensor:
        return normal(shape, seed + rank, purpose, key, visit)

    return draw


def _save_weights(engine: Engine, path: Path) -> None:
    tensors = {}
    for f in engine.fragments():
        if engine.writes(f):
            tensors[f"{f.name}|{f.part}|{f.parts}|{f.start}"] = f.tensors["param"].clone()
    save_file(tensors, path)


def weights(case: Case, folder: Path, facts: Specification) -> dict[str, Tensor]:
    """Put the weights that the ranks of a case left behind together."""
    parts: dict[str, dict[int, Tensor]] = {}
    shapes, cuts = facts.shapes, facts.cuts
    for rank in range(case.world):
        for key, tensor in load_file(folder / f"{case.name}-{rank}.safetensors").items():
            name, part, count, start = key.split("|")
            split = cuts.get(name) if int(count) > 1 else None
            shape = split.shape(shapes[name], int(count)) if split else shapes[name]
            whole = parts.setdefault(name, {}).setdefault(int(part), torch.full(shape, torch.nan))
            whole.view(-1)[int(start) : int(start) + len(tensor)] = tensor
    found = {}
    for name, shape in shapes.items():
        pieces = [parts[name][i] for i in sorted(parts[name])]
        split = cuts.get(name)
        found[name] = pieces[0] if len(pieces) == 1 or split is None else split.join(pieces)
        assert found[name].shape == shape
        assert found[name].isfinite().all(), f"{case.name}: {name} is incomplete"
    return found


@dataclass(frozen=True)
class Difference:
    """Largest relative differences to the single process: of losses, norms, weights, validation."""

    loss: float
    norm: float
    weights: float
    validation: float

    @property
    def worst(self) -> float:
        """The largest of all."""
        return max(asdict(self).values())


def compare(case: Case, latents: Path, folder: Path) -> Difference:
    """Compare a case with its single process."""
    start = dict(start_values(compose(case.reference, latents)))
    facts = specification_of(compose(case.reference, latents).model)
    mine, theirs = (weights(c, folder, facts) for c in (case, case.reference))
    found, expected = (
        json.loads((folder / f"{c.name}-0.json").read_text()) for c in (case, case.reference)
    )
    moved = [
        _apart(mine[n], theirs[n]) / float((theirs[n] - start[n]).double().norm())
        for n in facts.shapes
        if not torch.equal(theirs[n], start[n]) or not torch.equal(mine[n], start[n])
    ]
    return Difference(
        loss=_worst(found["losses"], expected["losses"]),
        norm=_worst(found["norms"], expected["norms"]),
        weights=max(moved),
        validation=_worst(found["validations"], expected["validations"]),
    )


def _apart(mine: Tensor, theirs: Tensor) -> float:
    """Return the distance of two weights beyond what storing them in fp32 explains.

    Every step rounds a weight by up to half a step of the grid that fp32 has there; for a weight
    near one that moves by a hundredth in all, five such halves are already 3e-5 of the movement.
    """
    grid = torch.nextafter(theirs.abs(), torch.tensor(torch.inf)) - theirs.abs()
    apart = (mine - theirs).abs().double() - STEPS / 2 * grid.double()
    return float(apart.clamp(min=0).norm())


def _worst(found: list[float], expected: list[float]) -> float:
    return max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
