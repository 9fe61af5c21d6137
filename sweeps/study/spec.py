"""One run of a study, before it is a run."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from data.files import write_json
from launch.local.process import Job
from sweeps.study.config import Study
from trainer.kinds import AnyRun, freeze_any, processes_of, start_command

# A point sets its own horizon, whatever the base or its experiment says.
NO_HORIZON = ("horizon.flops=0", "horizon.tokens=0", "horizon.steps=0")


class Phase(StrEnum):
    """What a run of a study is for.

    pilot: its loss centres the grids. grid: it is one of the points that the question is asked of.
    extend: one more size beyond the edge of a grid. replicate: another seed of a point.
    twin: the same run in another layout. arm: one of the ways to train that are compared.
    trunk: its rate stays constant, for branches to leave from. branch: decays from a trunk.
    """

    pilot = "pilot"
    grid = "grid"
    extend = "extend"
    replicate = "replicate"
    twin = "twin"
    arm = "arm"
    trunk = "trunk"
    branch = "branch"


@dataclass(frozen=True)
class Spec:
    """One run of a study.

    phase: what it is for; budget: nominal FLOPs; arm: which one it belongs to, '' without arms.
    overrides: what makes it differ from the study's base.
    """

    name: str
    phase: Phase
    budget: float
    overrides: list[str] = field(default_factory=list)
    arm: str = ""


def overrides_of(study: Study, spec: Spec) -> list[str]:
    """Return the Hydra overrides of a spec's run, which lies in the study's ``runs`` folder."""
    root = study.folder / "runs"
    fixed = [f"name={spec.name}", f"run_root={root}", f"log.group={study.name}"]
    return [*study.base, *NO_HORIZON, *spec.overrides, *fixed]


def train_job(run: AnyRun, name: str, cost: float) -> Job:
    """Freeze a run of any kind into its folder and return the job that trains it.

    cost: in FLOPs; it orders jobs and weighs their progress.
    """
    folder = freeze_any(run)
    return Job(
        name=name,
        run_dir=folder,
        argv=start_command(run, folder),
        num_processes=processes_of(run),
        cost=cost,
        done_marker=folder / "result.json",
    )


def save_plan(folder: Path, specs: list[Spec], folders: dict[str, str]) -> None:
    """Write plan.json: every run of the study with its folder."""
    rows = [asdict(spec) | {"folder": folders[spec.name]} for spec in specs]
    write_json(folder / "plan.json", rows)
