"""One run of a study, before it is a run."""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from data.files import write_json
from launch.local.process import Job
from sweeps.study.clips import stand_in
from sweeps.study.config import Study
from trainer.config import RunConfig, RunKind
from trainer.diffusion.horizon import flops_per_token
from trainer.kinds import (
    KINDS,
    AnyRun,
    folder_of,
    freeze_any,
    kind_of,
    processes_of,
    start_command,
)
from trainer.preflight import refuse_unready


def no_length(kind: RunKind) -> tuple[str, ...]:
    """Return the overrides that take any length off a run, whatever its base or experiment says."""
    return tuple(f"{key}=0" for key in KINDS[kind].lengths.values())


NO_HORIZON = no_length(RunKind.diffusion)
METRIC = {"flops": "flops", "steps": "step"}  # of metrics.jsonl, by the unit of a budget


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

    phase: what it is for; arm: which one it belongs to, '' without arms.
    budget: nominal FLOPs, or what else ``unit`` says, as its kind of run counts (trainer/kinds.py).
    overrides: what makes it differ from the study's base.
    """

    name: str
    phase: Phase
    budget: float
    overrides: list[str] = field(default_factory=list)
    arm: str = ""
    unit: str = "flops"


def refuse_uncounted(study: Study) -> None:
    """Raise ValueError where a study of budgets in FLOPs asks for runs that do not count them."""
    kind = kind_of(study.base)
    if KINDS[kind].counts != "flops":
        raise ValueError(
            f"base: asks for runs of kind={kind}, whose FLOPs nobody counts, so that no budget or "
            "law of FLOPs is defined for them. Use schema: points with lengths.steps."
        )


def overrides_of(study: Study, spec: Spec) -> list[str]:
    """Return the Hydra overrides of a spec's run, which lies in the study's ``runs`` folder."""
    chosen = kind_of([*study.base, *spec.overrides])
    fixed = [f"name={spec.name}", f"run_root={study.folder / 'runs'}"]
    if KINDS[chosen].group:
        fixed += [f"{KINDS[chosen].group}={study.name}", f"log.job_type={spec.phase}"]
    return [*study.base, *no_length(chosen), *spec.overrides, *fixed]


def train_job(run: AnyRun, name: str, cost: float) -> Job:
    """Freeze a run of any kind into its folder and return the job that trains it.

    cost: in the unit that its kind counts; it orders jobs and weighs their progress.
    Raises ValueError where the run cannot start; then nothing was written.
    """
    if not (folder_of(run) / "result.json").exists():
        refuse_unready(run)
    folder = freeze_any(run)
    return Job(
        name=name,
        run_dir=folder,
        argv=start_command(run, folder),
        num_processes=processes_of(run),
        cost=cost,
        done_marker=folder / "result.json",
        goal=(METRIC[KINDS[run.kind].counts], 0.0),
        tokens=_tokens_of(run, cost),
    )


def _tokens_of(run: AnyRun, cost: float) -> float:
    """Return about how many tokens a run trains on, by a clip that stands for its data."""
    if not isinstance(run, RunConfig):
        return 0.0
    return run.horizon.tokens or cost / flops_per_token(run, [stand_in(run)])


def save_plan(folder: Path, specs: list[Spec], folders: dict[str, str]) -> None:
    """Write plan.json: every run of the study with its folder."""
    rows = [asdict(spec) | {"folder": folders[spec.name]} for spec in specs]
    write_json(folder / "plan.json", rows)
