"""Carry out a study of a law: its phases, its table, its fit."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.dataset.shards import read_manifest
from data.files import write_json
from data.notices import doing
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.fit.weightings import by_weighting
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.pilot import compare_twins, pilot_minimum
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.ladder.shapes import Rung
from sweeps.study import recipe as recipes
from sweeps.study.results import (
    FREE_EPOCHS,
    SeedNoise,
    collect,
    excluded_rows,
    seed_noise,
    write_rows,
)
from sweeps.study.runner import StudyRunner, Work
from sweeps.study.samples import draw_samples
from sweeps.study.spec import Phase, Spec
from sweeps.study.y_axis import on_axis

WEIGHTINGS = "weightings.json"
TRAINED = (Phase.grid, Phase.extend, Phase.replicate)  # the runs that a law is fitted to


class IsoflopRunner(StudyRunner):
    """A study of a law. rows, noise, law: its table, its noise floor and its law.json."""

    study: StudyConfig
    plan: StudyPlan

    def __init__(self, study: StudyConfig, argv: Sequence[str]) -> None:
        super().__init__(study, StudyPlan(study), argv)
        self.rows: list[dict[str, Any]] = []
        self.noise: SeedNoise | None = None
        self.law: dict[str, Any] = {}
        self._pilot = ""

    def phases(self) -> Iterator[Work]:
        """Yield the pilot, the grids that it centres, what extends them, and the clips drawn."""
        yield Work("pilot", self.plan.pilot())
        centre, self._pilot = self.pilot_minimum()
        grid = self.plan.grid(centre)
        yield Work("grid", [*grid, *self._replicates(grid), *self.plan.twins()])
        for _ in range(self.study.grid.max_extensions):
            more = self.extensions()
            if not more:
                break
            yield Work("extend", more)
        self.tabulate()
        self.fit()
        yield from draw_samples(self.study, self._best(), self.plan.base)
        self.account()

    def describe(self) -> dict[str, Any]:
        """Return recipe, pilot, noise floor, twins, and what runs alone can warn of."""
        return {
            "warnings": self._repetition(),
            "recipe": recipes.describe(self.study.recipe),
            "pilot": self._pilot,
            "seconds_meaning": "training time summed over runs, one thread a process",
            "seeds_noise": None if self.noise is None else asdict(self.noise),
            "twin": compare_twins(self._results([Phase.twin])),
        }

    def _results(
        self, phases: Collection[Phase], budget: float | None = None
    ) -> list[dict[str, Any]]:
        return [
            on_axis(run.result, self.study.y_axis.axis)
            for run in self.finished()
            if run.spec.phase in phases and budget in (None, run.spec.budget)
        ]

    def pilot_minimum(self) -> tuple[float, str]:
        """Return the pilot's best number of parameters, by a parabola where it has a minimum."""
        results = self._results([Phase.pilot])
        if not results:
            raise ValueError("pilot: no run finished. See the log.txt of its runs.")
        return pilot_minimum(self.study.pilot, results)

    def _replicates(self, grid: list[Spec]) -> list[Spec]:
        """Return the middle sizes of each replicated budget's grid with other seeds."""
        specs = []
        for budget in self.study.replicates.budgets:
            members = [spec for spec in grid if spec.budget == budget]
            models = [self.plan.compose(spec).model for spec in members]
            rungs = [Rung(m.width, m.depth, m.head_dim, 0) for m in models]
            specs += self.plan.replicates(budget, rungs)
        return specs

    def extensions(self) -> list[Spec]:
        """Return one more size for each budget whose best run is at an edge of its grid."""
        specs = []
        for budget in self.study.sitting:
            results = self._results([Phase.grid, Phase.extend], budget)
            if not results:
                continue
            sizes = [r["params"] for r in results]
            best = min(results, key=lambda r: r["loss"])["params"]
            if best in (min(sizes), max(sizes)):
                spec = self.plan.extension(budget, sizes, upward=best == max(sizes))
                specs += [spec] if spec else []
        return specs

    def tabulate(self) -> None:
        """Write runs.csv."""
        points = [p for b in self.study.replicates.budgets for p in self._seeds_of(b)]
        self.noise = seed_noise(points)
        axis = self.study.y_axis.axis
        self.rows = collect(self.specs, self.folders, self.noise, y_axis=axis)
        write_rows(self.study.folder / "runs.csv", self.rows)

    def _seeds_of(self, budget: float) -> list[list[float]]:
        """Return the losses of each point of a budget over its seeds."""
        points: dict[int, list[float]] = {}
        for result in self._results([Phase.grid, Phase.replicate], budget):
            points.setdefault(result["params"], []).append(result["loss"])
        return list(points.values())

    def fit(self) -> None:
        """Fit runs.csv as it lies on disk, so that anyone can refit it, and write law.json."""
        table = self.study.folder / "runs.csv"
        form, axis = self.study.form.value, self.study.y_axis.axis
        study = self.study
        held_out = study.held_out if study.sitting == study.budgets else 1
        options = FitOptions(level=study.level, resamples=study.resamples, held_out=held_out)
        try:
            with doing(f"fitting the law of {self.study.name}"):
                law = fit_table(table, form, options, y_axis=None if axis.plain else axis)
                if rows := by_weighting(table, form, options):
                    write_json(self.study.folder / WEIGHTINGS, rows)
        except ValueError as error:
            law = unfitted(str(error), table, form)
            print(f"warning: {law['warnings'][0]}", file=sys.stderr)
        write_json(self.study.folder / "law.json", law)
        self.law = law

    def _repetition(self) -> list[str]:
        """Warn where runs saw their clips too often for D to mean fresh data."""
        results = self._results(TRAINED)
        often = [r for r in results if r["accounting"].get("epochs", 0) > FREE_EPOCHS]
        if not often:
            return []
        most = max(r["accounting"]["epochs"] for r in often)
        return [
            f"{len(often)} of {len(results)} runs saw every clip more than {FREE_EPOCHS} times (up "
            f"to {most:.1f}): D counts tokens seen, not fresh ones, and repeats are worth less "
            "(Muennighoff et al. 2023)."
        ]

    def _best(self) -> list[dict[str, Any]]:
        """Return the best included row of each budget."""
        best = []
        for budget in self.study.sitting:
            members = [r for r in self.rows if r["budget"] == budget and not r["excluded"]]
            best += [min(members, key=lambda r: r["loss"])] if members else []
        return best

    def account(self) -> None:
        """Write data.json: the data set's manifest, and what the largest run saw of it."""
        data = read_manifest(self.plan.base.data.root)
        for split in data.get("splits", {}).values():
            sources = split["sources"]
            if all("rendered" in source["licence"] for source in sources.values()):
                split["sources"] = len(sources)  # scenes by the thousand need no names
        trained = self._results([Phase.grid, Phase.extend])
        if trained:
            largest = max(trained, key=lambda r: r["flops"])
            data["accounting"] = {"run": largest["name"], **largest["accounting"]}
            data["accounting"]["padding_share"] = largest["padding_share"]
        write_json(self.study.folder / "data.json", data)


def unfitted(reason: str, table: Path, form: str) -> dict[str, Any]:
    """Return a law.json without a law, which says why: a study must not fall over at its end."""
    return {
        "form": form,
        "coefficients": None,
        "intervals": None,
        "frontier": [],
        "held_out": None,
        "held_out_reason": "no law was fitted",
        "warnings": [f"No law was fitted: {reason}"],
        "excluded": excluded_rows(table),
    }
