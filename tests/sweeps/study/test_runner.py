"""The runner of all kinds of study, by a kind whose runs are processes of a few milliseconds."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from launch.config import ClusterConfig
from launch.local.process import Job
from sweeps.study.runner import StudyRunner, Work
from sweeps.study.spec import Phase, Spec
from sweeps.watch.state import Watcher

TRAIN = """
import json, sys
result = {"status": "finished", "loss": float(sys.argv[1]), "seconds": 2.0}
with open(sys.argv[2], "w") as file:
    json.dump(result, file)
"""


@dataclass
class TinyConfig:
    kind: ClassVar[str] = "tiny"
    free: ClassVar[tuple[str, ...]] = ("seeds",)
    name: str = "tiny"
    question: str = "Which of two is better?"
    root: str = "runs"
    base: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=lambda: ["0.5", "0.25"])
    seeds: list[int] = field(default_factory=list)
    cluster: ClusterConfig = field(
        default_factory=lambda: ClusterConfig(retries=0, slots=2, poll_seconds=0.02)
    )

    @property
    def folder(self) -> Path:
        return Path(self.root) / self.name

    def check(self) -> None: ...


class TinyPlan:
    """A run writes the loss that its spec names; one that is no number fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job(self, spec: Spec) -> Job:
        run = self.folder / "runs" / f"{spec.name}-hash"
        argv = [sys.executable, "-c", TRAIN, spec.overrides[0], str(run / "result.json")]
        return Job(spec.name, run, argv, 1, spec.budget, run / "result.json")


class TinyRunner(StudyRunner):
    """Runs what it is asked for, and then the best of it again."""

    study: TinyConfig

    def __init__(self, study: TinyConfig) -> None:
        super().__init__(study, TinyPlan(study.folder), ["study=tiny", "losses=[1]"])
        self.started: list[tuple[str, list[str]]] = []

    def launch(self, title: str, jobs: Sequence[Job]) -> None:
        missing = [job.name for job in jobs if not job.done_marker.exists()]
        self.started += [(title, missing)] if missing else []
        super().launch(title, jobs)

    def phases(self) -> Iterator[Work]:
        if not self.study.losses:
            raise ValueError("losses=[]: must hold one. Use [0.5].")
        yield Work("try", [Spec(f"run-{n}", Phase.arm, 1e9, [loss], arm=f"arm {n}")
                           for n, loss in enumerate(self.study.losses)])  # fmt: skip
        best = min(self.finished(), key=lambda run: run.result["loss"])
        again = Spec(f"{best.spec.name}-s1", Phase.replicate, 1e9, best.spec.overrides)
        yield Work("again", [again])
        yield Work("nothing")

    def describe(self) -> dict[str, Any]:
        return {"best": min(run.result["loss"] for run in self.finished())}


def about(study: TinyConfig) -> dict[str, Any]:
    found = json.loads((study.folder / "study.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.heavy
def test_a_later_phase_follows_from_results_and_the_same_command_starts_nothing(
    tmp_path: Path,
) -> None:
    study = TinyConfig(root=str(tmp_path))
    runner = TinyRunner(study)
    runner.run()
    assert runner.started == [("try", ["run-0", "run-1"]), ("again", ["run-1-s1"])]
    first = about(study)
    assert list(first) == ["kind", "name", "question", "command", "config", "best", "started",
                           "finished", "seconds", "env", "failures", "spikes"]  # fmt: skip
    assert (first["kind"], first["best"], first["seconds"]) == ("tiny", 0.25, 6.0)
    assert first["command"] == "python -m sweeps.run study=tiny losses=[1]"
    assert first["failures"] == []
    runner.argv.append("base=['data.root=s3://me:planted@b/set']")
    assert runner.about("")["command"].endswith(" base=['data.root=s3://***@b/set']")
    again = TinyRunner(study)
    again.run()
    assert again.started == []
    assert about(study)["started"] == first["started"]


@pytest.mark.heavy
def test_the_plan_tells_a_watcher_what_each_run_is_for(tmp_path: Path) -> None:
    study = TinyConfig(root=str(tmp_path))
    TinyRunner(study).run()
    runs = Watcher(study.folder).look().runs
    assert [(run.name, run.phase, run.arm, run.state.value) for run in runs] == [
        ("run-0", "arm", "arm 0", "finished"),
        ("run-1", "arm", "arm 1", "finished"),
        ("run-1-s1", "replicate", "", "finished"),
    ]


@pytest.mark.heavy
def test_a_failed_run_is_told_with_its_phase_and_last_line_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = TinyConfig(root=str(tmp_path), losses=["0.5", "no luck"])
    runner = TinyRunner(study)
    runner.run()
    assert [started for _, started in runner.started] == [["run-0", "run-1"], ["run-0-s1"]]
    (failure,) = about(study)["failures"]
    assert (failure["phase"], failure["job"]) == ("try", "run-1")
    assert failure["last_line"] == "ValueError: could not convert string to float: 'no luck'"
    assert failure["reason"]
    assert "run-1" in capsys.readouterr().err


def test_a_study_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    study = TinyConfig(root=str(tmp_path), losses=[])
    with pytest.raises(ValueError, match=r"^losses=\[\]: must hold one"):
        TinyRunner(study).run()
    assert not study.folder.exists()


@pytest.mark.heavy
def test_a_folder_of_another_study_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    TinyRunner(TinyConfig(root=str(tmp_path))).run()
    other = TinyRunner(TinyConfig(root=str(tmp_path), losses=["0.1"]))
    with pytest.raises(ValueError, match="holds a study with other settings"):
        other.run()
    assert other.started == []
    TinyRunner(TinyConfig(root=str(tmp_path), seeds=[1], question="And now?")).run()
