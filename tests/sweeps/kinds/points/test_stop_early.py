"""What is left out of an isoFLOP curve, and what never is."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.fit.minima.isoflop import parabola_minimum
from sweeps.kinds.compose import compose_any
from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.run import PointsRunner
from sweeps.kinds.points.stop_early import cannot_matter, waves
from sweeps.report.pages.by_kind import build_page

from .test_points import clips, plant  # noqa: F401 - a fixture


def test_sizes_run_from_the_middle_outwards_and_each_once() -> None:
    assert waves(9) == [[2, 3, 4, 5, 6], [1, 7], [0, 8]]
    assert waves(3) == [[0, 1, 2]]
    assert sorted(i for ring in waves(8) for i in ring) == list(range(8))


@pytest.mark.parametrize(
    ("losses", "noise", "left_out"),
    [
        ([None, 1.2, 1.1, 1.0, 1.1, 1.2, None], 0.01, [0, 6]),
        ([None, 1.01, 1.005, 1.0, 1.1, 1.2, None], 0.01, [6]),  # the left side is within noise
        ([None, 1.2, 1.1, 1.0, 1.1, 1.2, None], None, []),  # without a noise floor
        ([None, 1.1, 1.2, 1.0, 1.2, 1.1, None], 0.01, []),  # falls outwards: another valley
        ([None, 1.0, 1.1, 1.2, 1.3, 1.4, None], 0.01, [6]),  # the minimum is at the left edge
        ([None, None, 1.1, 1.0, 1.1, None, None], 0.01, []),  # one worse size is not two
        ([None, 1.2, None, 1.0, 1.1, 1.2, None], 0.01, [6]),  # a run that failed says nothing
    ],
)
def test_a_size_is_left_out_only_beyond_two_worse_ones(losses, noise, left_out) -> None:
    missing = [i for i, loss in enumerate(losses) if loss is None]
    assert [i for i in missing if cannot_matter(i, losses, noise)] == left_out


def test_what_is_left_out_never_held_the_minimum_and_moves_it_less_than_the_noise() -> None:
    """Curves with one valley at a random place, noise as stated."""
    rng, noise, saved = np.random.default_rng(2), 0.005, 0
    x = np.log(1e5) + np.log(1.5) * np.arange(9)
    moved = []
    for _ in range(400):
        centre = x[4] + rng.uniform(-0.8, 0.8)
        true = 0.04 * (x - centre) ** 2
        full = np.exp(true + noise * rng.standard_normal(9))
        losses: list[float | None] = [None] * 9
        for ring in waves(9):
            for i in ring:
                if not cannot_matter(i, losses, noise):
                    losses[i] = float(full[i])
        kept = np.array([i for i, loss in enumerate(losses) if loss is not None])
        saved += 9 - len(kept)
        assert int(np.argmin(true)) in kept
        y = np.log(full)
        less = float(parabola_minimum(x[kept], y[kept])[0][0])
        moved.append(less - centre)
    whole_scatter = noise / (2 * 0.04 * np.sqrt(np.sum((x - x.mean()) ** 2)))
    assert saved / 400 > 1
    assert abs(np.mean(moved)) < whole_scatter
    assert np.std(moved) < 3 * whole_scatter


SIZES = [1.7e4, 3.0e4, 4.6e4, 8.8e4, 1.4e5, 2.2e5, 3.5e5]


@pytest.mark.slow
def test_the_runner_never_starts_what_cannot_matter_and_says_so(
    clips: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losses are planted on a valley in log params around 8.8e4, far above the noise."""
    started: list[list[str]] = []

    def launch(self: PointsRunner, phase: str, jobs: list[Any]) -> None:
        del phase
        missing = [job for job in jobs if not job.done_marker.exists()]
        started.append([job.name for job in missing])
        for job in missing:
            point = next(p for p in self.points if self.folders[p.spec.name] == job.run_dir)
            valley = 0.04 * np.log(point.params / 8.8e4) ** 2
            plant(self, job, float(0.5 * np.exp(valley + 1e-4 * point.seed)))

    monkeypatch.setattr(PointsRunner, "launch", launch)
    names = ("large_long", "small_long", "large_short")
    arms = [
        f'arms.{name}=["data.root={clips}","objective.caption_dropout=0.{i}"]'
        for i, name in enumerate(names)
    ]
    base = 'base=["experiment=cpu_demo","validation.splits=[val_worlds]"]'
    words = ["study=cpu_resolution", "name=early", f"root={tmp_path}", base, *arms]
    words += [f"sizes.params={SIZES}", "sizes.exponent=0", "lengths.flops=[1e11,2e11]"]
    study = compose_any([*words, "stop_early=true", "repeat.lengths=[1e11]", "resamples=20"])
    assert isinstance(study, PointsConfig)
    PointsRunner(study, []).run()
    page = build_page(study.folder).read_text()
    # Three arms, two lengths: five of seven sizes, a repeat an arm, and then nothing is left to do.
    assert [len(names) for names in started if names] == [30, 3]
    rows = list(csv.DictReader((study.folder / "runs.csv").read_text().splitlines()))
    left = [row for row in rows if row["status"] == "left out"]
    assert len(left) == 12
    assert {row["excluded"] for row in left} == {"1"}
    assert {row["reason"] for row in left} == {"left out: beyond two worse sizes"}
    assert "left out: beyond two worse sizes" in page
    assert json.loads((study.folder / "analysis.json").read_text())["answer"]
    started.clear()
    PointsRunner(study, []).run()
    assert not any(started)
