"""Carry out a study of any kind: its phases one after the other, then study.json.

A kind of study is a class with two functions: ``phases`` says what to run next, knowing what has
ended, and ``describe`` says what was found. All else is the same for every kind and stands here.
What is done is skipped, so that the same command continues; a run that fails is shown, and the
study goes on without it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from data.files import write_json, write_text
from data.notices import doing
from data.secrets import masked
from launch.local.eta import Observation
from launch.local.process import Job
from launch.local.run import Outcome, Status
from sweeps.study.config import Study
from sweeps.study.freeze import freeze_study, refuse_other
from sweeps.study.phases import describe_environment, launch_phase
from sweeps.study.results import read_result
from sweeps.study.spec import Spec, save_plan
from sweeps.study.spikes import losses_of, spikes_in


@dataclass(frozen=True)
class Work:
    """What one phase runs. title: of the phase; specs: runs to train; jobs: anything else."""

    title: str
    specs: Sequence[Spec] = ()
    jobs: Sequence[Job] = ()


@dataclass(frozen=True)
class Finished:
    """A run that has finished: its spec, its folder and its result.json."""

    spec: Spec
    folder: Path
    result: dict[str, Any]


class Plan(Protocol):
    """How a kind of study turns a spec into a run."""

    def job(self, spec: Spec) -> Job:
        """Freeze a spec's run and return the job that trains it."""


class StudyRunner(ABC):
    """Carry a study through the phases of its kind.

    specs, folders: runs asked for so far, in order, and their folders by name.
    failures: jobs that failed, each with phase, job, reason and the last line of its log.
    """

    def __init__(self, study: Study, plan: Plan, argv: Sequence[str]) -> None:
        self.study, self.plan, self.argv = study, plan, list(argv)
        self.specs: list[Spec] = []
        self.folders: dict[str, Path] = {}
        self.failures: list[dict[str, str]] = []
        self._seen: list[Observation] = []  # what trainings took, for the ETA of the next phase

    @abstractmethod
    def phases(self) -> Iterator[Work]:
        """Yield the work of each phase; go on when it has ended, and write the kind's own files.

        Nothing is written before the first phase: raise ValueError there for a study that cannot
        begin.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what study.json holds beside what all studies say."""

    def run(self) -> None:
        """Run everything and write study.json. Raises Interrupted when a signal stopped it."""
        phases = self.phases()
        first = next(phases)
        refuse_other(self.study)
        jobs = self._training(first.specs)  # refuses what cannot start before anything is written
        freeze_study(self.study)
        started = self._started()
        self.launch(first.title, [*jobs, *first.jobs])
        for work in phases:
            self.launch(work.title, [*self._training(work.specs), *work.jobs])
        write_json(self.study.folder / "study.json", self.about(started))

    def launch(self, title: str, jobs: Sequence[Job]) -> None:
        """Run a phase's jobs and note which failed."""
        if not jobs:
            return
        seen = self._seen if all(job.tokens for job in jobs) else []
        outcomes = launch_phase(f"{self.study.name}: {title}", jobs, self.study.cluster, seen)
        self.failures += [_failure(title, o) for o in outcomes if o.status is Status.failed]

    def finished(self) -> list[Finished]:
        """Return the runs asked for so far that have finished."""
        found = []
        for spec in self.specs:
            folder = self.folders[spec.name]
            result = read_result(folder)
            if result is not None and result["status"] == "finished":
                found.append(Finished(spec, folder, result))
        return found

    def _training(self, specs: Sequence[Spec]) -> list[Job]:
        """Note runs as asked for, write plan.json and return the jobs that train them."""
        if not specs:
            return []
        with doing(f"composing {len(specs)} runs of {self.study.name}"):
            jobs = [self.plan.job(spec) for spec in specs]
        self.specs += specs
        self.folders |= {job.name: job.run_dir for job in jobs}
        self.study.folder.mkdir(parents=True, exist_ok=True)
        save_plan(self.study.folder, self.specs, {k: v.name for k, v in self.folders.items()})
        return jobs

    def _started(self) -> str:
        """Return when the study was first started."""
        path = self.study.folder / "started.txt"
        if not path.exists():
            write_text(path, _now())
        return path.read_text(encoding="utf-8")

    def about(self, started: str) -> dict[str, Any]:
        """Return study.json."""
        results = [read_result(folder) or {} for folder in self.folders.values()]
        spiked, known = spikes_in(losses_of(self.folders.values()))
        return {
            "kind": self.study.kind,
            "name": self.study.name,
            "question": self.study.question,
            "command": masked("python -m sweeps.run " + " ".join(self.argv), os.environ),
            "config": OmegaConf.to_container(OmegaConf.structured(self.study), enum_to_str=True),
            **self.describe(),
            "started": started,
            "finished": _now(),
            "seconds": sum(float(result.get("seconds") or 0) for result in results),
            "env": describe_environment(self.folders.values()),
            "failures": self.failures,
            "spikes": {"runs": spiked, "of": known},
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _failure(title: str, outcome: Outcome) -> dict[str, str]:
    tail = outcome.log_tail.strip().splitlines()
    return {
        "phase": title,
        "job": outcome.name,
        "reason": outcome.reason,
        "last_line": tail[-1][:300] if tail else "",
    }
