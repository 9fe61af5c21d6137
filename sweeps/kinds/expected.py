"""From a study of any kind to the runs it will start: the one place that tells kinds apart.

A kind of study is planned by a function from its schema's object and a `Clips` to `Expected`; a new
kind adds its function to `PLANNERS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.plan import ArmsPlan
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.pilot import pilot_minimum
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.kinds.points.config import GridStudyConfig
from sweeps.kinds.points.plan import GridPlan
from sweeps.ladder.shapes import Rung
from sweeps.study.recipe import rounding_warnings
from sweeps.study.results import read_result
from sweeps.study.spec import Spec
from trainer.config import RunConfig, run_name

# Where no data set is at hand a clip of 5 x 16 x 16 codec cells stands for it, whose 320 tokens and
# 32 caption tokens are the mean of the demo's clips.
STAND_IN_GRID, STAND_IN_CAPTION = (5, 8, 8), 32


@dataclass(frozen=True)
class Expected:
    """One run to be: its spec, how to compose it, and what rounding moved too far."""

    spec: Spec
    compose: Callable[[], RunConfig]
    doubts: list[str] = field(default_factory=list)


@dataclass
class Planned:
    """All runs of a study that can be named now, and in words what cannot."""

    folder: Path
    runs: list[Expected]
    notes: list[str] = field(default_factory=list)


class Clips:
    """The clips that runs train on: read once for each data set, or one that stands in for it."""

    def __init__(self, size: tuple[int, int, int] | None = None) -> None:
        self._size = size
        self._read: dict[tuple[str, str], list[SampleInfo]] = {}
        self.notes: list[str] = []

    def of(self, run: RunConfig) -> list[SampleInfo]:
        """Return the clips of a run's training split, or the one that stands in."""
        key = run.data.root, run.data.train_split
        if key not in self._read:
            self._read[key] = self._load(run, *key)
        return self._read[key]

    def is_real(self, run: RunConfig) -> bool:
        """Say whether a run's clips were read from its data set."""
        return self.of(run)[0].shard != ""

    def _load(self, run: RunConfig, root: str, split: str) -> list[SampleInfo]:
        if self._size is None and (Path(root) / split).is_dir():
            return read_index(root, split)
        clip = stand_in(run, self._size)
        why = "clip= was given" if self._size else f"there is no data set at {root}/{split}"
        frames, height, width = (clip.num_frames, clip.height, clip.width)
        self.notes.append(
            f"Assumed: {why}, so FLOPs a token are those of clips of {frames} frames of "
            f"{height} x {width} with a caption of {clip.caption_tokens} tokens. Steps "
            "move with it by a few per cent where attention is a small part of the FLOPs."
        )
        return [clip]


def stand_in(run: RunConfig, size: tuple[int, int, int] | None = None) -> SampleInfo:
    """Return a clip of `size` source (frames, height, width), or of 320 tokens of this run."""
    if size is None:
        counts, cell = STAND_IN_GRID, run.cell
        size = 1 + (counts[0] - 1) * cell[0], counts[1] * cell[1], counts[2] * cell[2]
    frames, height, width = size
    return SampleInfo(
        key="stand-in", media="latent", num_frames=frames, height=height, width=width, fps=24.0,
        duration_seconds=frames / 24, caption="", source="", licence="", rendered=False, sha256="",
        original={}, shard="", offset=0, nbytes=0, caption_tokens=STAND_IN_CAPTION,
    )  # fmt: skip


class _DryPlan(StudyPlan):
    """A study's plan whose clips may be stand-ins, and which composes each run once."""

    def __init__(self, study: StudyConfig, clips: Clips) -> None:
        super().__init__(study)
        self._clips = clips
        self._composed: dict[str, RunConfig] = {}

    @cached_property
    def index(self) -> list[SampleInfo]:
        """The training split's clips, or the stand-in."""
        return self._clips.of(self.base)

    def compose(self, spec: Spec) -> RunConfig:
        """Compose a spec's run, once."""
        if spec.name not in self._composed:
            self._composed[spec.name] = super().compose(spec)
        return self._composed[spec.name]


def plan_isoflop(study: StudyConfig, clips: Clips) -> Planned:
    """Plan pilot, grids, replicates and twins; what follows from their results is in the notes."""
    plan = _DryPlan(study, clips)
    pilot = plan.pilot()
    centre, notes = _centre(study, [plan.compose(spec) for spec in pilot])
    asked = {plan.rung(value).params: value for value in study.pilot.params}
    runs = [
        _expected(plan, spec, rung, asked[rung.params])
        for spec, rung in zip(pilot, map(plan.rung, asked.values()), strict=True)
    ]
    shapes: set[tuple[int, int]] = set()
    for budget in study.budgets:
        middle = centre * (budget / study.pilot.flops) ** study.pilot.exponent
        lowest = max(
            middle * study.grid.spacing ** -((study.grid.sizes - 1) / 2), study.grid.min_params
        )
        rungs = plan.sizes_around(middle)
        for i, rung in enumerate(rungs):
            spec = plan.point("grid", budget, rung)
            runs.append(_expected(plan, spec, rung, lowest * study.grid.spacing**i))
        if budget in study.replicates.budgets:
            more = plan.replicates(budget, rungs)
            runs += [Expected(spec, partial(plan.compose, spec)) for spec in more]
        shapes |= {(rung.width, rung.width // rung.head_dim) for rung in rungs}
    runs += [Expected(spec, partial(plan.compose, spec)) for spec in plan.twins()]
    notes += _bends(shapes, plan.base.model.values_per_token)
    if study.grid.max_extensions:
        notes.append(
            f"Not in the table: where a budget's best size is at an edge up to "
            f"{study.grid.max_extensions} more sizes are trained ({len(study.budgets)} budgets)."
        )
    if study.samples.prompts:
        notes.append("Not in the table: the clips drawn at the end (minutes on two cores).")
    return Planned(study.folder, runs, notes)


def _bends(shapes: set[tuple[int, int]], values: int) -> list[str]:
    """Say what of a study's (width, heads) may bend its law (docs/log.md, 2026-11-27)."""
    notes = []
    if narrow := sorted({width for width, _ in shapes if width < values}):
        listed = ", ".join(map(str, narrow))
        notes.append(
            f"Widths {listed} are below a token's {values} values: the rank of their outer layers "
            "limits the loss, and they bend the law of wider models. Raise grid.min_params."
        )
    counts = sorted({heads for _, heads in shapes})
    if counts[0] == 1 < counts[-1]:
        notes.append(
            f"Some sizes have one head and others {counts[1:]}: they differ in more than width. "
            "Set grid.heads=2 to hold it fixed."
        )
    return notes


def _expected(plan: StudyPlan, spec: Spec, rung: Rung, params: float) -> Expected:
    """Return the run of a point that was asked for with `params` parameters."""
    tokens = plan.tokens_for(rung, spec.budget)
    recipe = plan.recipe(rung, spec.budget)
    doubts = rounding_warnings(recipe, tokens, rung, params)
    return Expected(spec, partial(plan.compose, spec), doubts)


def _centre(study: StudyConfig, pilots: Sequence[RunConfig]) -> tuple[float, list[str]]:
    """Return the parameters that the grids are centred by, and how they are known."""
    folders = [Path(run.run_root) / run_name(run) for run in pilots]
    results = [r for r in map(read_result, folders) if r and r["status"] == "finished"]
    if results:
        centre, text = pilot_minimum(study.pilot, results)
        ended = len(results) == len(pilots)
        return centre, [f"Pilot: {text}"] + (
            [] if ended else [f"Only {len(results)} of {len(pilots)} pilot runs have ended."]
        )
    if not study.pilot.params:
        raise ValueError(
            "pilot.params=[]: must hold the sizes that centre the grids. Use for example "
            "pilot.params=[2e4,4e4,8e4]."
        )
    centre = math.exp(sum(map(math.log, study.pilot.params)) / len(study.pilot.params))
    return centre, [
        f"Assumed: no pilot run has ended, so grids are centred as if its minimum were at "
        f"N = {centre:.3g}, the geometric mean of pilot.params, and moved by the stated "
        f"exponent: N*(C) = {centre:.3g} (C / {study.pilot.flops:.3g})^{study.pilot.exponent:g}. "
        "The pilot's minimum will move every size; FLOPs stay."
    ]


def plan_arms(study: ArmsConfig, clips: Clips) -> Planned:
    """Plan every arm with every seed."""
    plan = ArmsPlan(study)
    notes = []
    if study.draws.prompts:
        notes.append("Not in the table: scoring, drawing and probing (about a tenth of the FLOPs).")
    runs = [Expected(spec, partial(plan.compose, spec)) for spec in plan.specs]
    return Planned(study.folder, runs, notes)


def plan_grid(study: GridStudyConfig, clips: Clips) -> Planned:
    """Plan every point of a study of points; branches and repeats follow from its runs."""
    plan = GridPlan(study)
    notes = []
    if study.repeat.seeds:
        notes.append(
            f"Not in the table: {len(study.repeat.seeds)} more seeds of each group's best."
        )
    if study.branches.every:
        notes.append(f"Not in the table: {study.branches.count} decay branches of each trunk.")
    runs = [Expected(p.spec, partial(plan.compose, p.spec)) for p in plan.points()]
    return Planned(study.folder, runs, notes)


PLANNERS: dict[type, Callable[[Any, Clips], Planned]] = {
    StudyConfig: plan_isoflop,
    ArmsConfig: plan_arms,
    GridStudyConfig: plan_grid,
}


def plan_study(study: object, clips: Clips) -> Planned:
    """Plan a study of any kind.

    Raises:
        ValueError: a shape, a run or the study itself cannot be.
    """
    planner = PLANNERS.get(type(study))
    if planner is None:
        known = ", ".join(kind.__name__ for kind in PLANNERS)
        raise ValueError(f"schema={type(study).__name__}: cannot be planned. Known are {known}.")
    planned = planner(study, clips)
    names = [expected.spec.name for expected in planned.runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        planned.notes.append(f"Runs of one name: {', '.join(twice[:3])}; one folder serves both.")
    return planned
