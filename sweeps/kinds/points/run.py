"""Carry out a study of points: train, repeat, measure, tabulate, analyse.

A run that fails is shown, and the analysis goes on without it.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from data.dataset.shards import read_index
from data.files import write_json
from launch.local.process import Job
from sweeps.kinds.points.analyse import analyse
from sweeps.kinds.points.branches import as_trunk, branches_of
from sweeps.kinds.points.config import Analysis, PointsConfig
from sweeps.kinds.points.laws import best_of_lengths
from sweeps.kinds.points.noise import seed_noise_of
from sweeps.kinds.points.plan import Point, PointsPlan
from sweeps.kinds.points.stop_early import cannot_matter, waves
from sweeps.kinds.points.table import rows_of, write_rows
from sweeps.study import recipe as recipes
from sweeps.study.answer import Finding, Row, grouped
from sweeps.study.results import COLUMNS, read_result
from sweeps.study.runner import StudyRunner, Work
from sweeps.study.samples import draw_samples
from sweeps.study.y_axis import on_axis
from trainer.kinds import KINDS


class PointsRunner(StudyRunner):
    """A study of points. points: those asked for so far; left_out: those that cannot matter."""

    study: PointsConfig
    plan: PointsPlan

    def __init__(self, study: PointsConfig, argv: Sequence[str]) -> None:
        super().__init__(study, PointsPlan(study), argv)
        self.points: list[Point] = []
        self.left_out: list[Point] = []

    def phases(self) -> Iterator[Work]:
        """Yield trunks and branches, or rings, or all points, and repeats; then what measures."""
        points = self.plan.points()
        self._check_data(points)
        if self.study.branches.every:
            trunks = [as_trunk(self.plan, point) for point in points]
            yield self._train("trunk", trunks)
            yield self._train("branch", [b for t in trunks for b in branches_of(self.plan, t)])
        elif self.study.stop_early:
            yield from self._rings(points)
        else:
            yield self._train("grid", points)
            yield self._train("repeat", self._repeats())
        noises = self._noises()
        yield Work("other noises", jobs=[job for job, _ in noises.values()])
        finding = self._answer(noises)
        write_json(self.study.folder / "analysis.json", finding.to_json())
        if self.study.analysis is Analysis.samples:
            best = best_of_lengths(self._rows())
            yield from draw_samples(self.study, best, self.plan.transformer(self.points[0].spec))
        print(finding.answer)

    def describe(self) -> dict[str, Any]:
        """Return what was asked, how, and the FLOPs that it took."""
        study = self.study
        kind = KINDS[self.points[0].kind]
        measures = [key for key in kind.columns if key not in COLUMNS]
        told = {
            "cost": study.cost,
            "expected": study.expected,
            "analysis": study.analysis.value,
            "level": study.level,
            "loss": kind.loss if study.y_axis.axis.plain else f"{kind.loss}, {study.y_axis.axis}",
            "columns": [*self.points[0].settings, *measures],  # beside those of every study
        }
        if kind.counts == "flops":
            results = [read_result(folder) or {} for folder in self.folders.values()]
            told["recipe"] = recipes.describe(study.recipe)
            told["flops"] = sum(result.get("flops", 0) for result in results)
        return told

    def _check_data(self, points: Sequence[Point]) -> None:
        """Raise ValueError where a data set is missing, before anything is trained."""
        seen = set()
        for point in points:
            run = self.plan.compose(point.spec)
            held_out = KINDS[run.kind].splits(run)
            if not held_out:
                raise ValueError("validation.splits=[]: no loss to compare. Use [val_worlds].")
            for split in (run.data.train_split, *held_out):
                if (run.data.root, split) not in seen:
                    read_index(run.data.root, split)
                    seen.add((run.data.root, split))

    def _train(self, title: str, points: Sequence[Point]) -> Work:
        """Note points as asked for and return the work that trains them."""
        self.points += points
        return Work(title, [point.spec for point in points])

    def _rings(self, points: Sequence[Point]) -> Iterator[Work]:
        """Yield isoFLOP curves from their middles outwards, without what cannot matter.

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
            yield self._train(f"ring {number + 1}", chosen)
            if number == 0:
                yield self._train("repeat", self._repeats())
        self._note_left_out()

    def _loss(self, point: Point) -> float | None:
        """Return the loss of a point, None while it has no result of its own."""
        result = read_result(self.plan.folder(point.spec)) or {}
        if result.get("status") != "finished":
            return None
        return float(on_axis(result, self.study.y_axis.axis)["loss"])

    def _note_left_out(self) -> None:
        """List what was left out among the points, so that it stands in the table."""
        self.points += self.left_out
        for point in self.left_out:
            self.folders[point.spec.name] = self.plan.folder(point.spec)

    def _rows(self) -> list[Row]:
        return rows_of(self.points, self.folders, None, self.study.y_axis.axis)

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

    def _noises(self) -> dict[str, tuple[Job, str]]:
        """Return, where the study asks for it, the job that measures each run under other noises.

        By the name of the run's folder, with the kind of captions that it is measured with.
        """
        seeds, found = self.study.noise_seeds, {}
        for run in self.finished() if seeds else []:
            settings, folder = self.plan.transformer(run.spec).validation, run.folder
            words = [settings.splits[0], settings.samples, *seeds]
            out = self.study.folder / "noises" / f"{folder.name}-{'-'.join(map(str, words))}.json"
            argv = [sys.executable, "-m", "trainer.probes.score", f"run={folder}", f"out={out}"]
            argv += [f"split={settings.splits[0]}", f"samples={settings.samples}"]
            argv += [f"captions=[{settings.captions.value}]"]
            argv += [f"noise_seeds=[{','.join(map(str, seeds))}]"]
            work = out.parent / folder.name
            job = Job(f"noise-{run.spec.name}", work, argv, 1, run.spec.budget, out)
            found[folder.name] = job, settings.captions.value
        return found

    def _draws(self, noises: dict[str, tuple[Job, str]]) -> dict[str, list[float]]:
        """Return the losses of every run under the other noises."""
        found = {}
        for name, (job, captions) in noises.items():
            if job.done_marker.exists():
                scores = json.loads(job.done_marker.read_text(encoding="utf-8"))
                by_seed = scores["captions"][captions]["by_noise_seed"]
                found[name] = [by_seed[str(seed)] for seed in self.study.noise_seeds]
        return found

    def _answer(self, noises: dict[str, tuple[Job, str]]) -> Finding:
        """Write runs.csv and analyse it."""
        noise, spread = seed_noise_of(self._rows(), self.study.level)
        rows = rows_of(self.points, self.folders, noise, self.study.y_axis.axis)
        names = {self.folders[point.spec.name].name for point in self.left_out}
        for row in rows:
            if row["name"] in names:
                row |= {"status": "left out", "reason": "left out: beyond two worse sizes"}
        table = self.study.folder / "runs.csv"
        write_rows(table, rows)
        finding = analyse(self.study, rows, table, spread, self._draws(noises))
        finding.warnings += [
            f"{failure['job']} failed in “{failure['phase']}”: {failure['reason']}"
            for failure in self.failures
        ]
        return finding
