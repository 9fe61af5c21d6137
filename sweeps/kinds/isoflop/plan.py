"""A study as a list of runs: the pilot, the grids it centres, replicates and the twin.

IsoFLOP points are computed, not listed: a run's tokens follow from its budget and size, its batch
and learning rate from its tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from data.dataset.shards import read_index
from launch.local.process import Job
from models.count import count_params
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.ladder.shapes import Rung, shape_for
from sweeps.study.recipe import Recipe, recipe_for
from sweeps.study.spec import (
    NO_HORIZON,
    Phase,
    Spec,
    overrides_of,
    refuse_uncounted,
    train_job,
)
from trainer.config import RunConfig, compose_run
from trainer.diffusion.horizon import Clip, flops_per_token, some_of


class StudyPlan:
    """Turn a study's questions into specs, and specs into run folders and jobs."""

    def __init__(self, study: StudyConfig) -> None:
        self.study = study
        refuse_uncounted(study)
        self.base = compose_run([*study.base, *NO_HORIZON, "horizon.flops=1"])

    @cached_property
    def index(self) -> Sequence[Clip]:
        """The training split's index: FLOPs a token depend on its clips."""
        return read_index(self.base.data.root, self.base.data.train_split)

    def rung(self, params: float) -> Rung:
        """Return the ladder's shape near a number of parameters."""
        grid = self.study.grid
        lowest = max(params, grid.min_params)
        rung = shape_for(lowest, self.base.model, max_depth=grid.max_depth or None)
        if not grid.heads:
            return rung
        model = replace(rung.of(self.base.model), head_dim=rung.width // grid.heads)
        return replace(rung, head_dim=model.head_dim, params=count_params(model).total)

    def tokens_for(self, rung: Rung, flops: float) -> float:
        """Return the training tokens that a budget buys at a size."""
        return flops / self.flops_per_token(rung)

    def flops_per_token(self, rung: Rung) -> float:
        """Return training FLOPs a video token of a shape on this data set."""
        model = replace(self.base.model, width=rung.width, depth=rung.depth, head_dim=rung.head_dim)
        return flops_per_token(replace(self.base, model=model), some_of(self.index))

    def recipe(self, rung: Rung, flops: float) -> Recipe:
        """Return learning rate and batch of a point."""
        tokens = self.tokens_for(rung, flops)
        return recipe_for(self.study.recipe, tokens, rung, self.base.model.base_width)

    def point(self, phase: Phase, flops: float, rung: Rung, seed: int = 0) -> Spec:
        """Return the spec of one isoFLOP point."""
        recipe = self.recipe(rung, flops)
        name = f"{phase}-c{flops:.2g}-w{rung.width}d{rung.depth}".replace("+", "")
        return Spec(
            name if seed == 0 else f"{name}-s{seed}",
            phase,
            flops,
            [
                f"model.width={rung.width}",
                f"model.depth={rung.depth}",
                f"model.head_dim={rung.head_dim}",
                f"horizon.flops={flops:.6g}",
                f"seed={seed}",
                *recipe.overrides(),
            ],
        )

    def pilot(self) -> list[Spec]:
        """Return the pilot's isoFLOP curve."""
        pilot = self.study.pilot
        return [self.point(Phase.pilot, pilot.flops, rung) for rung in self._rungs(pilot.params)]

    def grid(self, pilot_params: float) -> list[Spec]:
        """Return all grids, centred by the pilot's minimum and the stated exponent."""
        study, specs = self.study, []
        for budget in study.sitting:
            centre = pilot_params * (budget / study.pilot.flops) ** study.pilot.exponent
            specs += [self.point(Phase.grid, budget, rung) for rung in self.sizes_around(centre)]
        return specs

    def sizes_around(self, centre: float) -> list[Rung]:
        """Return a grid of distinct rungs around a size, shifted up where it meets the smallest."""
        grid = self.study.grid
        lowest = max(centre * grid.spacing ** -((grid.sizes - 1) / 2), grid.min_params)
        rungs: list[Rung] = []
        target = lowest
        while len(rungs) < grid.sizes:
            rung = self.rung(target)
            if rung not in rungs:
                rungs.append(rung)
            target *= grid.spacing if rung == rungs[-1] else 1.1
        return rungs

    def extension(self, budget: float, sizes: list[float], upward: bool) -> Spec | None:
        """Return the point that continues a budget's grid on one side, if there is a shape."""
        spacing = self.study.grid.spacing
        edge = max(sizes) * spacing if upward else min(sizes) / spacing
        if edge < self.study.grid.min_params * 0.95:
            return None
        rung = self.rung(edge)
        known = any(abs(rung.params / size - 1) < 0.01 for size in sizes)
        return None if known else self.point(Phase.extend, budget, rung)

    def replicates(self, budget: float, rungs: Sequence[Rung]) -> list[Spec]:
        """Return the middle sizes of a budget's grid, in rising order, with other seeds."""
        chosen = self.study.replicates
        first = max(0, (len(rungs) - chosen.sizes + 1) // 2)
        return [
            self.point(Phase.replicate, budget, rung, seed)
            for rung in rungs[first : first + chosen.sizes]
            for seed in chosen.seeds
        ]

    def twins(self) -> list[Spec]:
        """Return one run on one process, and again on two with ZeRO 1."""
        twin = self.study.twin
        if not twin.enabled:
            return []
        rung = self.rung(twin.params)
        lr = self.study.recipe.lr
        shared = [f"model.width={rung.width}", f"model.depth={rung.depth}"]
        shared += [f"model.head_dim={rung.head_dim}", f"optim.lr={lr}"]
        shared += [f"horizon.steps={twin.steps}", "data.packs_per_step=2"]
        shared += [f"data.pack_tokens={self.study.recipe.pack_tokens}"]
        two = ["parallel.processes=2", "parallel.zero_stage=1"]
        return [
            Spec("twin-one-process", Phase.twin, 0.0, shared),
            Spec("twin-two-processes-zero1", Phase.twin, 0.0, [*shared, *two]),
        ]

    def _rungs(self, params: list[float]) -> list[Rung]:
        rungs: list[Rung] = []
        for rung in (self.rung(value) for value in params):
            if rung not in rungs:
                rungs.append(rung)
        return rungs

    def compose(self, spec: Spec) -> RunConfig:
        """Compose a spec's run."""
        return compose_run(overrides_of(self.study, spec))

    def job(self, spec: Spec) -> Job:
        """Freeze a spec's run and return the job that trains it."""
        run = self.compose(spec)
        return train_job(run, spec.name, self._cost(run, spec))

    def _cost(self, run: RunConfig, spec: Spec) -> float:
        if spec.budget:
            return spec.budget
        return run.horizon.steps * run.batch_tokens * flops_per_token(run, some_of(self.index))
