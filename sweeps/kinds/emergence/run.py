"""Carry out a study of emergence: train, ask, forecast; then the larger budgets; then the answer.

The forecast is written between the smaller budgets and the larger ones, once. A probe leaves its
file in the folder of the run that was asked, so that only what is missing is done again.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data.files import finite, write_csv, write_json
from sweeps.kinds.emergence.answer import answer
from sweeps.kinds.emergence.config import AgainConfig, EmergenceConfig
from sweeps.kinds.emergence.curves import Curve, curves_of, knee_among
from sweeps.kinds.emergence.drawn import add_samples
from sweeps.kinds.emergence.forecast import FILE, forecast, unanswered
from sweeps.kinds.emergence.ladder import write_ladders
from sweeps.kinds.emergence.plan import Couple, EmergencePlan
from sweeps.kinds.emergence.table import (
    COLUMNS,
    SAMPLE_COLUMNS,
    Asked,
    ability_rows,
    best_params,
    read_asked,
    sample_rows,
)
from sweeps.study import recipe as recipes
from sweeps.study.answer import Row
from sweeps.study.results import collect, read_result, write_rows
from sweeps.study.runner import StudyRunner, Work


class EmergenceRunner(StudyRunner):
    """A study of emergence. couples: those asked for so far."""

    study: EmergenceConfig
    plan: EmergencePlan

    def __init__(self, study: EmergenceConfig, argv: Sequence[str]) -> None:
        super().__init__(study, EmergencePlan(study), argv)
        self.couples: list[Couple] = []
        self._forecast: dict[str, Any] = {}
        self._knee: float | None = None  # where seeds were added that name no budget

    def phases(self) -> Iterator[Work]:
        """Yield smaller budgets and their probes, then larger ones; write tables and the answer."""
        study = self.study
        self.plan.check_data()
        small = [budget for budget in study.sitting if budget <= study.forecast_from]
        large = [budget for budget in study.sitting if budget > study.forecast_from]
        if small:
            yield from self._ladder(small)
            self._register()
        if large:
            yield from self._ladder(large)
        yield from self._at_the_knee()
        self._write()

    def describe(self) -> dict[str, Any]:
        """Return what was asked, how, what was forecast, and the FLOPs that it took."""
        study = self.study
        results = [read_result(folder) or {} for folder in self.folders.values()]
        return {
            "cost": study.cost,
            "expected": study.expected,
            "level": 0.95,
            "loss": "velocity error on held-out clips, lawful ones for law and lawless for twin",
            "recipe": recipes.describe(study.recipe),
            "flops": sum(result.get("flops", 0) for result in results),
            "forecast": self._forecast,
            "knee": self._knee,
        }

    def _ladder(self, budgets: Sequence[float]) -> Iterator[Work]:
        """Yield the training of some budgets, other seeds of their best sizes, and the probes."""
        words = f"{budgets[0]:.2g} to {budgets[-1]:.2g} FLOPs"
        couples = self.plan.couples(budgets)
        yield self._train(f"train, {words}", couples)
        more = self._again(couples, self.study.again)
        if self.study.knees.budgets:
            more += self._again(couples, self.study.knees)
        yield self._train(f"best sizes again, {words}", more)
        yield self._ask(f"ask, {words}", [*couples, *more])

    def _at_the_knee(self) -> Iterator[Work]:
        """Yield more seeds of the first budget at which one has a law, and their probes."""
        seeds = [*self.study.seeds, *self.study.again.seeds]
        if self.study.knees.seeds and not self.study.knees.budgets:
            self._knee = knee_among(self._curves(self._rows()), seeds)
        if self._knee is None:
            return
        words = f"at the knee, {self._knee:.2g} FLOPs"
        couples = [couple for couple in self.couples if couple.budget == self._knee]
        more = self._again(couples, self.study.knees)
        yield self._train(f"more seeds {words}", more)
        yield self._ask(f"ask {words}", more)

    def _ask(self, title: str, couples: Sequence[Couple]) -> Work:
        """Return the work that asks those couples whose runs have finished."""
        return Work(title, jobs=self.plan.asking([c for c in couples if self._asked(c)]))

    def _train(self, title: str, couples: Sequence[Couple]) -> Work:
        """Note couples as asked for and return the work that trains them."""
        self.couples += couples
        return Work(title, [spec for couple in couples for spec in couple.specs])

    def _again(self, couples: Sequence[Couple], again: AgainConfig) -> list[Couple]:
        """Return the best size of each budget with the seeds that it gets besides."""
        asked = [found for found in map(self._asked, couples) if found]
        best = best_params(asked, self.study.seeds)
        firsts: dict[float, Couple] = {}
        for couple in couples:
            if best.get(couple.budget) == couple.params:
                firsts.setdefault(couple.budget, couple)
        chosen = [c for b, c in firsts.items() if not again.budgets or b in again.budgets]
        return [self.plan.again(couple, seed) for couple in chosen for seed in again.seeds]

    def _asked(self, couple: Couple) -> Asked | None:
        return read_asked(couple, self.plan.folder(couple.law), self.plan.folder(couple.twin))

    def _rows(self) -> list[Row]:
        asked = [found for found in map(self._asked, self.couples) if found]
        return ability_rows(asked, self.study.seeds)

    def _curves(self, rows: Sequence[Row]) -> list[Curve]:
        """Return the abilities of rows as the first look has them."""
        return curves_of(rows, self.study.pairs.looks[0].value, self.study.least)

    def _register(self) -> None:
        """Write the forecast of onsets from what there is, once."""
        path = self.study.folder / FILE
        if path.exists():
            self._forecast = json.loads(path.read_text(encoding="utf-8"))
            return
        larger = [b for b in self.study.budgets if b > self.study.forecast_from]
        smaller = [b for b in self.study.budgets if b <= self.study.forecast_from]
        folders = [self.plan.folder(s) for c in self.plan.couples(larger) for s in c.specs]
        begun = sum((folder / "metrics.jsonl").exists() for folder in folders)
        curves = self._curves(self._rows())
        if unanswered(curves, smaller):  # a sitting that ended below, or a run that failed
            return
        made = forecast(curves, self.study.forecast_from, begun)
        made |= {"look": self.study.pairs.looks[0].value, "pairs": self.study.pairs.count}
        self._forecast = finite(made)
        write_json(path, self._forecast)

    def _write(self) -> None:
        """Write runs.csv, abilities.csv and analysis.json; print the answer."""
        folder, rows = self.study.folder, self._rows()
        specs = [spec for couple in self.couples for spec in couple.specs]
        runs = collect(specs, self.folders, None)
        for row, spec in zip(runs, specs, strict=True):
            row["arm"] = spec.arm
        write_rows(folder / "runs.csv", runs)
        write_csv(folder / "abilities.csv", COLUMNS, rows)
        look = self.study.pairs.looks[0].value
        found = answer(self._curves(rows), self._forecast, look)
        asked = [found for found in map(self._asked, self.couples) if found]
        drawn = sample_rows(asked, self.study.seeds)
        if drawn:
            write_csv(folder / "samples.csv", SAMPLE_COLUMNS, drawn)
            add_samples(found, drawn)
            for picture in write_ladders(folder / "samples", asked, self.study.seeds):
                print(f"picture: {picture}")
        found.warnings += [
            f"{failure['job']} failed in “{failure['phase']}”: {failure['reason']}"
            for failure in self.failures
        ]
        write_json(folder / "analysis.json", found.to_json())
        print(found.answer)
