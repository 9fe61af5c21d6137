"""Run a study of a law: its phases, its collection, its fit."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.dataset.shards import read_manifest
from data.files import write_json
from launch.local.process import Job
from launch.local.run import describe_failures
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.pilot import compare_twins, pilot_minimum
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.ladder.shapes import Rung
from sweeps.report.pages.isoflop import build_report
from sweeps.study import recipe as recipes
from sweeps.study.freeze import freeze_study
from sweeps.study.phases import (
    INTERRUPTED,
    Interrupted,
    describe_environment,
    launch_phase,
)
from sweeps.study.results import (
    SeedNoise,
    collect,
    excluded_rows,
    read_result,
    seed_noise,
    write_rows,
)
from sweeps.study.samples import plan_samples
from sweeps.study.spec import Spec, save_plan
from sweeps.summary import log_summary

FREE_EPOCHS = 4  # up to here repeated data is worth about as much as new (Muennighoff et al. 2023)


class StudyRunner:
    """Carry a study through its phases; every phase skips what is done."""

    def __init__(self, study: StudyConfig, argv: Sequence[str]) -> None:
        self.study, self.argv = study, list(argv)
        self.plan = StudyPlan(study)
        self.specs: list[Spec] = []
        self.folders: dict[str, Path] = {}
        self.failures: list[str] = []

    def run(self) -> Path:
        """Run everything; return the report's path."""
        started = time.time()
        freeze_study(self.study)
        self._train("pilot", self.plan.pilot())
        centre, pilot_text = self._pilot_minimum()
        grid = self.plan.grid(centre)
        self._train("grid", [*grid, *self._replicates(grid), *self.plan.twins()])
        for _ in range(self.study.grid.max_extensions):
            more = self._extensions()
            if not more:
                break
            self._train("extend", more)
        rows, noise = self._table()
        law = self._fit()
        self._sample(rows)
        self._describe(rows, noise, pilot_text, started)
        report = build_report(self.study.folder)
        log_summary(self.study, self.plan.base.log.project, rows, law, report)
        return report

    def _train(self, phase: str, specs: list[Spec]) -> None:
        """Train the runs of a phase that have no result yet."""
        jobs = []
        for spec in specs:
            job = self.plan.job(spec)
            self.specs.append(spec)
            self.folders[spec.name] = job.run_dir
            jobs.append(job)
        save_plan(self.study.folder, self.specs, {k: v.name for k, v in self.folders.items()})
        self._launch(f"{self.study.name}: {phase}", jobs)

    def _launch(self, title: str, jobs: list[Job]) -> None:
        text = describe_failures(launch_phase(title, jobs, self.study.cluster))
        self.failures += [text] if text else []

    def _results(self, phases: Sequence[str], budget: float | None = None) -> list[dict[str, Any]]:
        found = []
        for spec in self.specs:
            if spec.phase in phases and budget in (None, spec.budget):
                result = read_result(self.folders[spec.name])
                if result is not None and result["status"] == "finished":
                    found.append(result)
        return found

    def _pilot_minimum(self) -> tuple[float, str]:
        """Return the pilot's best number of parameters, by a parabola where it has a minimum."""
        results = self._results(["pilot"])
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

    def _extensions(self) -> list[Spec]:
        """Return one more size for each budget whose best run is at an edge of its grid."""
        specs = []
        for budget in self.study.budgets:
            results = self._results(["grid", "extend"], budget)
            if not results:
                continue
            sizes = [r["params"] for r in results]
            best = min(results, key=lambda r: r["loss"])["params"]
            if best in (min(sizes), max(sizes)):
                spec = self.plan.extension(budget, sizes, upward=best == max(sizes))
                specs += [spec] if spec else []
        return specs

    def _table(self) -> tuple[list[dict[str, Any]], SeedNoise | None]:
        """Write runs.csv."""
        noise = seed_noise([p for b in self.study.replicates.budgets for p in self._seeds_of(b)])
        rows = collect(self.specs, self.folders, noise)
        write_rows(self.study.folder / "runs.csv", rows)
        return rows, noise

    def _seeds_of(self, budget: float) -> list[list[float]]:
        """Return the losses of each point of a budget over its seeds."""
        points: dict[int, list[float]] = {}
        for result in self._results(["grid", "replicate"], budget):
            points.setdefault(result["params"], []).append(result["loss"])
        return list(points.values())

    def _fit(self) -> dict[str, Any]:
        """Fit runs.csv as it lies on disk, so that anyone can refit it, and write law.json."""
        table = self.study.folder / "runs.csv"
        try:
            law = fit_table(
                table,
                self.study.form.value,
                FitOptions(level=self.study.level, resamples=self.study.resamples),
            )
        except ValueError as error:
            law = unfitted(str(error), table, self.study.form.value)
            print(f"warning: {law['warnings'][0]}", file=sys.stderr)
        law["warnings"] += self._repetition()
        write_json(self.study.folder / "law.json", law)
        return law

    def _repetition(self) -> list[str]:
        """Warn where runs saw their clips too often for D to mean fresh data."""
        results = self._results(["grid", "extend", "replicate"])
        often = [r for r in results if r["accounting"].get("epochs", 0) > FREE_EPOCHS]
        if not often:
            return []
        most = max(r["accounting"]["epochs"] for r in often)
        return [
            f"{len(often)} of {len(results)} runs saw every clip more than {FREE_EPOCHS} times (up "
            f"to {most:.1f}): D counts tokens seen, not fresh ones, and repeats are worth less "
            "(Muennighoff et al. 2023)."
        ]

    def _sample(self, rows: list[dict[str, Any]]) -> None:
        """Draw the compute ladder from the best included run of each budget."""
        best = []
        for budget in self.study.budgets:
            members = [r for r in rows if r["budget"] == budget and not r["excluded"]]
            best += [min(members, key=lambda r: r["loss"])] if members else []
        if not best or not self.study.samples.prompts:
            return
        run = self.plan.base
        jobs, ladder = plan_samples(self.study, best, run.data.root, run.validation.splits[0])
        self._launch(f"{self.study.name}: samples", jobs)
        write_json(self.study.folder / "samples" / "ladder.json", ladder)

    def _describe(
        self,
        rows: list[dict[str, Any]],
        noise: SeedNoise | None,
        pilot: str,
        started: float,
    ) -> None:
        """Write study.json and data.json for the report."""
        folder, study = self.study.folder, self.study
        first = folder / "started.txt"
        if not first.exists():
            first.write_text(datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"))
        twins = self._results(["twin"])
        finished = [r for r in rows if r["seconds"] is not None]
        write_json(
            folder / "study.json",
            {
                "name": study.name,
                "question": study.question,
                "command": "python -m sweeps.run " + " ".join(self.argv),
                "config": json.loads(_as_json(study)),
                "recipe": recipes.describe(study.recipe),
                "pilot": pilot,
                "started": first.read_text(),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": sum(r["seconds"] for r in finished),
                "seconds_meaning": "training time summed over runs, one thread a process",
                "env": describe_environment(folder / "runs" / r["name"] for r in rows),
                "seeds_noise": None if noise is None else asdict(noise),
                "twin": compare_twins(twins),
                "failures": self.failures,
            },
        )
        data = read_manifest(self.plan.base.data.root)
        for split in data.get("splits", {}).values():
            sources = split["sources"]
            if all("rendered" in source["licence"] for source in sources.values()):
                split["sources"] = len(sources)  # scenes by the thousand need no names
        trained = self._results(["grid", "extend"])
        if trained:
            largest = max(trained, key=lambda r: r["flops"])
            data["accounting"] = {"run": largest["name"], **largest["accounting"]}
            data["accounting"]["padding_share"] = largest["padding_share"]
        write_json(folder / "data.json", data)


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


def _as_json(study: StudyConfig) -> str:
    from omegaconf import OmegaConf

    return json.dumps(OmegaConf.to_container(OmegaConf.structured(study), enum_to_str=True))


def run_study(study: StudyConfig, argv: Sequence[str]) -> int:
    """Run a study and say where its report is; return the exit status."""
    try:
        runner = StudyRunner(study, argv)
        report = runner.run()
    except Interrupted:
        print("interrupted: runs saved what they had; the same command continues.")
        return INTERRUPTED
    print(f"law:    {study.folder / 'law.json'}")
    print(f"runs:   {study.folder / 'runs.csv'}")
    print(f"report: {report}")
    return 1 if runner.failures else 0
