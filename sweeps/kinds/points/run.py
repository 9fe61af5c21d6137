"""Carry out a study of points: train, repeat, measure, tabulate, analyse, write the page.

``python -m sweeps.run study=NAME`` comes here where the study's schema is ``grid``. Every phase
skips what is done, so the same command continues and starts only what is missing; a run that fails
is shown, and the analysis goes on without it.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.dataset.shards import read_index
from data.files import write_json
from launch.local.process import Job
from launch.local.run import Status
from sweeps.kinds.points.analyse import analyse
from sweeps.kinds.points.answer import Finding, Row, grouped
from sweeps.kinds.points.branches import as_trunk, branches_of
from sweeps.kinds.points.config import Analysis, GridStudyConfig
from sweeps.kinds.points.laws import best_of_lengths
from sweeps.kinds.points.noise import seed_noise_of
from sweeps.kinds.points.plan import GridPlan, Point
from sweeps.kinds.points.stop_early import cannot_matter, waves
from sweeps.kinds.points.table import rows_of, write_rows
from sweeps.report.pages.points import build_grid_report
from sweeps.study import recipe as recipes
from sweeps.study.freeze import freeze_study
from sweeps.study.phases import (
    INTERRUPTED,
    Interrupted,
    describe_environment,
    launch_phase,
)
from sweeps.study.results import read_result
from sweeps.study.samples import plan_samples
from sweeps.study.spec import save_plan


class GridRunner:
    """A study of points through its phases."""

    def __init__(self, study: GridStudyConfig, argv: Sequence[str]) -> None:
        self.study, self.argv = study, list(argv)
        self.plan = GridPlan(study)
        self.points: list[Point] = []
        self.folders: dict[str, Path] = {}
        self.failures: list[dict[str, str]] = []
        self.left_out: list[Point] = []

    def run(self) -> Path:
        """Run everything; return the page's path."""
        points = self.plan.points()
        self._check_data(points)
        freeze_study(self.study)
        started = self._started()
        if self.study.branches.every:
            trunks = [as_trunk(self.plan, point) for point in points]
            self._train("trunk", trunks)
            self._train("branch", [b for trunk in trunks for b in branches_of(self.plan, trunk)])
        elif self.study.stop_early:
            self._train_rings(points)
        else:
            self._train("grid", points)
            self._train("repeat", self._repeats())
        finding = self._answer(self._draws())
        self._describe(started)
        write_json(self.study.folder / "analysis.json", finding.to_json())
        if self.study.analysis is Analysis.samples:
            self._sample()
        print(finding.answer)
        return build_grid_report(self.study.folder)

    def _check_data(self, points: Sequence[Point]) -> None:
        """Raise ValueError where a data set is missing, before anything is trained."""
        seen = set()
        for point in points:
            run = self.plan.compose(point.spec)
            for split in (run.data.train_split, *run.validation.splits):
                if (run.data.root, split) not in seen:
                    read_index(run.data.root, split)
                    seen.add((run.data.root, split))

    def _started(self) -> str:
        path = self.study.folder / "started.txt"
        if not path.exists():
            path.write_text(datetime.now(UTC).isoformat(timespec="seconds"))
        return path.read_text()

    def _train(self, phase: str, points: Sequence[Point]) -> None:
        """Train the points of a phase that have no result yet."""
        jobs = [self.plan.job(point.spec) for point in points]
        self.points += points
        self.folders |= {job.name: job.run_dir for job in jobs}
        names = {name: folder.name for name, folder in self.folders.items()}
        save_plan(self.study.folder, [point.spec for point in self.points], names)
        self._launch(phase, jobs)

    def _train_rings(self, points: Sequence[Point]) -> None:
        """Train isoFLOP curves from their middles outwards, without what cannot matter (early.py).

        After the first ring the best runs are repeated: no size is left out without their noise.
        """
        curves: dict[tuple[str, float, int], list[Point]] = {}
        for point in sorted(points, key=lambda p: p.params):
            curves.setdefault((point.arm, point.length, point.seed), []).append(point)
        rings = {key: waves(len(curve)) for key, curve in curves.items()}
        for number in range(max(len(ring) for ring in rings.values())):
            _, spread = seed_noise_of(self._rows(), self.study.level)
            noise = spread.high if spread else None
            chosen = []
            for key, curve in curves.items():
                losses = [self._loss(point) for point in curve]
                for i in rings[key][number] if number < len(rings[key]) else []:
                    if losses[i] is None and cannot_matter(i, losses, noise):
                        self.left_out.append(curve[i])
                    else:
                        chosen.append(curve[i])
            self._train(f"ring {number + 1}", chosen)
            if number == 0:
                self._train("repeat", self._repeats())
        self._note_left_out()

    def _loss(self, point: Point) -> float | None:
        """Return the loss of a point, None while it has no result of its own."""
        result = read_result(self.plan.folder(point.spec)) or {}
        return result["loss"] if result.get("status") == "finished" else None

    def _note_left_out(self) -> None:
        """List what was left out among the points, so that it stands in the table."""
        self.points += self.left_out
        for point in self.left_out:
            self.folders[point.spec.name] = self.plan.folder(point.spec)

    def _launch(self, phase: str, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        outcomes = launch_phase(f"{self.study.name}: {phase}", jobs, self.study.cluster)
        self.failures += [
            {"phase": phase, "job": outcome.name, "reason": outcome.reason}
            for outcome in outcomes
            if outcome.status is Status.failed
        ]

    def _rows(self) -> list[Row]:
        return rows_of(self.points, self.folders, None)

    def _repeats(self) -> list[Point]:
        """Return the best point of every group, with each of the seeds that repeat it."""
        repeat = self.study.repeat
        rows = [row for row in self._rows() if row["status"] == "finished"]
        by_name = {self.folders[point.spec.name].name: point for point in self.points}
        over_sizes = self.study.analysis is Analysis.resolution
        for row in rows:
            row["best_of"] = (row["arm"], row["length"]) if over_sizes else row["group"]
        found = []
        for group in grouped(rows, "best_of").values():
            best = by_name[min(group, key=lambda row: row["loss"])["name"]]
            if not repeat.lengths or best.length in repeat.lengths:
                found += [self.plan.repeat(best, seed) for seed in repeat.seeds]
        return found

    def _draws(self) -> dict[str, list[float]]:
        """Measure every finished run under other validation noises, where the study asks for it."""
        seeds = self.study.noise_seeds
        if not seeds:
            return {}
        jobs, outs = [], {}
        for point in self.points:
            folder = self.folders[point.spec.name]
            result = read_result(folder)
            if result is None or result["status"] != "finished":
                continue
            run = self.plan.compose(point.spec)
            words = [run.validation.splits[0], run.validation.samples, *seeds]
            out = self.study.folder / "noises" / f"{folder.name}-{'-'.join(map(str, words))}.json"
            argv = [sys.executable, "-m", "trainer.probes.score", f"run={folder}", f"out={out}"]
            argv += [f"split={run.validation.splits[0]}", f"samples={run.validation.samples}"]
            argv += [f"captions=[{run.validation.captions.value}]"]
            argv += [f"noise_seeds=[{','.join(map(str, seeds))}]"]
            work = out.parent / folder.name
            jobs.append(Job(f"noise-{point.spec.name}", work, argv, 1, point.spec.budget, out))
            outs[folder.name] = (out, run.validation.captions.value)
        self._launch("other noises", jobs)
        found = {}
        for name, (out, captions) in outs.items():
            if out.exists():
                by_seed = json.loads(out.read_text())["captions"][captions]["by_noise_seed"]
                found[name] = [by_seed[str(seed)] for seed in seeds]
        return found

    def _answer(self, draws: dict[str, list[float]]) -> Finding:
        """Write runs.csv and analyse it."""
        noise, spread = seed_noise_of(self._rows(), self.study.level)
        rows = rows_of(self.points, self.folders, noise)
        names = {self.folders[point.spec.name].name for point in self.left_out}
        for row in rows:
            if row["name"] in names:
                row |= {"status": "left out", "reason": "left out: beyond two worse sizes"}
        table = self.study.folder / "runs.csv"
        write_rows(table, rows)
        finding = analyse(self.study, rows, table, spread, draws)
        finding.warnings += [
            f"{failure['job']} failed in “{failure['phase']}”: {failure['reason']}"
            for failure in self.failures
        ]
        return finding

    def _sample(self) -> None:
        """Draw clips from the best run of every length, and write samples/ladder.json."""
        best = best_of_lengths(rows_of(self.points, self.folders, None))
        if not best or not self.study.samples.prompts:
            return
        run = self.plan.compose(self.points[0].spec)
        jobs, ladder = plan_samples(self.study, best, run.data.root, run.validation.splits[0])
        self._launch("samples", jobs)
        write_json(self.study.folder / "samples" / "ladder.json", ladder)

    def _describe(self, started: str) -> None:
        """Write study.json for the page."""
        study = self.study
        results = [read_result(folder) or {} for folder in self.folders.values()]
        about: dict[str, Any] = {
            "kind": "grid",
            "name": study.name,
            "question": study.question,
            "cost": study.cost,
            "expected": study.expected,
            "analysis": study.analysis.value,
            "level": study.level,
            "command": "python -m sweeps.run " + " ".join(self.argv),
            "config": OmegaConf.to_container(OmegaConf.structured(study), enum_to_str=True),
            "recipe": recipes.describe(study.recipe),
            "started": started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "flops": sum(result.get("flops", 0) for result in results),
            "seconds": sum(result.get("seconds", 0.0) for result in results),
            "env": describe_environment(self.folders.values()),
            "failures": self.failures,
        }
        write_json(study.folder / "study.json", about)


def run_grid(study: GridStudyConfig, argv: Sequence[str]) -> int:
    """Run a study of points and say where its page is; return the exit status."""
    try:
        runner = GridRunner(study, argv)
        page = runner.run()
    except Interrupted:
        print("interrupted: runs saved what they had; the same command continues.")
        return INTERRUPTED
    for name in ("runs.csv", "analysis.json"):
        print(f"{name + ':':15s}{study.folder / name}")
    print(f"page:          {page}")
    return 1 if runner.failures else 0
