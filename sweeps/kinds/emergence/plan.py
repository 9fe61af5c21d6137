"""A study of emergence as runs: budgets x sizes x seeds, each on lawful clips and as its twin."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from data.dataset.shards import read_index
from data.files import write_json
from launch.local.process import Job
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.ladder.shapes import Rung, shape_for
from sweeps.study.recipe import recipe_for
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
from trainer.kinds import folder_of
from trainer.probes.likelihood.config import FILE as PROBES
from trainer.probes.samples.config import FILE as SAMPLES

LAW, TWIN = "law", "twin"
TOGETHER = 8  # couples that one process asks


@dataclass(frozen=True)
class Probe:
    """What asks runs, and the file of its answer in a run's folder."""

    name: str
    module: str
    file: str


PAIRS = Probe("pairs", "trainer.probes.likelihood.probe", PROBES)
DRAWS = Probe("draws", "trainer.probes.samples.probe", SAMPLES)


@dataclass(frozen=True)
class Couple:
    """One run on lawful clips, and its twin of the same budget, size and seed."""

    budget: float
    params: int
    seed: int
    law: Spec
    twin: Spec

    @property
    def specs(self) -> list[Spec]:
        """Both of them."""
        return [self.law, self.twin]


class EmergencePlan:
    """Turn a study of emergence into couples of runs, and those into jobs."""

    def __init__(self, study: EmergenceConfig) -> None:
        self.study = study
        refuse_uncounted(study)
        self.base = compose_run([*study.base, *study.law, *NO_HORIZON, "horizon.flops=1"])
        self._compose = cache(lambda words: compose_run(list(words)))

    def check_data(self) -> None:
        """Raise ValueError where a data set of the study is missing."""
        twin = compose_run([*self.study.base, *self.study.twin, *NO_HORIZON, "horizon.flops=1"])
        for run in (self.base, twin):
            for split in (run.data.train_split, *run.validation.splits):
                read_index(run.data.root, split)

    @cached_property
    def clips(self) -> Sequence[Clip]:
        """The clips of the law's training split, on which FLOPs a token depend."""
        return read_index(self.base.data.root, self.base.data.train_split)

    def couples(self, budgets: Sequence[float]) -> list[Couple]:
        """Return every size with every seed at some budgets."""
        found: dict[str, Couple] = {}
        for budget in budgets:
            for rung in self.rungs(budget):
                for seed in self.study.seeds:
                    couple = self.couple(Phase.grid, budget, rung, seed)
                    found.setdefault(couple.law.name, couple)  # two sizes may share a shape
        return list(found.values())

    def rungs(self, budget: float) -> list[Rung]:
        """Return the shapes of a budget."""
        study, more = self.study, self.study.more_sizes
        asked = (study.sizes.scaled(params, budget) for params in study.sizes.params)
        sizes = [max(params, study.min_params) for params in asked]
        sizes += more.params if budget in more.budgets else []
        return [shape_for(params, self.base.model, min_depth=study.min_depth) for params in sizes]

    def couple(self, phase: Phase, budget: float, rung: Rung, seed: int) -> Couple:
        """Return a run of a shape and its twin."""
        study = self.study
        run = replace(self.base, model=rung.of(self.base.model))
        tokens = budget / flops_per_token(run, some_of(self.clips))
        shared = [f"model.{key}={getattr(rung, key)}" for key in ("width", "depth", "head_dim")]
        shared += recipe_for(study.recipe, tokens, rung, run.model.base_width).overrides()
        shared += [f"horizon.flops={budget:.6g}", f"seed={seed}"]
        name = f"c{budget:.3g}-w{rung.width}d{rung.depth}-s{seed}".replace("+", "")
        law, twin = (
            Spec(f"{arm}-{name}", phase, budget, [*own, *shared], arm)
            for arm, own in ((LAW, study.law), (TWIN, study.twin))
        )
        return Couple(budget, rung.params, seed, law, twin)

    def again(self, couple: Couple, seed: int) -> Couple:
        """Return a couple again with another seed."""
        model = self.compose(couple.law).model
        rung = Rung(model.width, model.depth, model.head_dim, couple.params)
        return self.couple(Phase.replicate, couple.budget, rung, seed)

    def compose(self, spec: Spec) -> RunConfig:
        """Compose a spec's run, once."""
        found = self._compose(tuple(overrides_of(self.study, spec)))
        assert isinstance(found, RunConfig)
        return found

    def folder(self, spec: Spec) -> Path:
        """Return a spec's run folder, whether it exists or not."""
        return folder_of(self.compose(spec))

    def job(self, spec: Spec) -> Job:
        """Freeze a spec's run and return the job that trains it."""
        return train_job(self.compose(spec), spec.name, spec.budget)

    def asking(self, couples: Sequence[Couple]) -> list[Job]:
        """Return the jobs that ask runs beside their twins; the files lie in the runs' folders.

        A few couples share a job, which loads and measures what they have in common once.
        """
        pairs, draws = self.study.pairs, self.study.draws
        asked = {
            "worlds": pairs.worlds,
            "properties": pairs.properties,
            "looks": [look.value for look in pairs.looks],
            "pairs": pairs.count,
            "seed": pairs.seed,
            "clips": pairs.clips,
        }
        jobs = self._of(PAIRS, couples, asked)
        if draws.clips:
            drawn = {"worlds": pairs.worlds, "clips": draws.clips, "seed": draws.seed}
            shown = {"shown": draws.shown} if draws.shown else {}  # older answers do not say it
            jobs += self._of(DRAWS, couples, drawn | {"steps": draws.steps} | shown)
        return jobs

    def _of(self, probe: Probe, couples: Sequence[Couple], asked: dict[str, Any]) -> list[Job]:
        missing = [c for c in couples if not answers(self.folder(c.law) / probe.file, asked)]
        return [
            self._job_of(probe, missing[first : first + TOGETHER], asked)
            for first in range(0, len(missing), TOGETHER)
        ]

    def _job_of(self, probe: Probe, couples: Sequence[Couple], asked: dict[str, Any]) -> Job:
        listed = []
        for couple in couples:
            run, twin = self.folder(couple.law), self.folder(couple.twin)
            (run / probe.file).unlink(missing_ok=True)  # it answered another question
            listed.append({"run": str(run), "twin": str(twin), "out": str(run / probe.file)})
        name = f"{probe.name}-{couples[0].law.name}"
        work = self.study.folder / "asked" / name
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / "couples.json", listed)
        argv = [sys.executable, "-m", probe.module, f"couples={work / 'couples.json'}"]
        argv += [f"{key}={_word(value)}" for key, value in asked.items()]
        cost = sum(couple.budget + 1e11 for couple in couples)  # small ones are asked as much
        return Job(name, work, argv, 1, cost, Path(listed[-1]["out"]))


def answers(path: Path, asked: dict[str, Any]) -> bool:
    """Say whether a probe's file is there and answers what is asked."""
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return all(found.get("asked", {}).get(key) == value for key, value in asked.items())


def _word(value: Any) -> str:
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)
