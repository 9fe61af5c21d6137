"""The runs that a study of a law will start, as far as they are known before its pilot."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from data.words import counted
from models.objective import Prediction
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.pilot import pilot_minimum
from sweeps.kinds.isoflop.plan import StudyPlan
from sweeps.ladder.shapes import Rung
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned
from sweeps.study.recipe import rounding_warnings
from sweeps.study.results import read_result
from sweeps.study.spec import Phase, Spec
from trainer.config import RunConfig
from trainer.diffusion.horizon import Clip
from trainer.identity import run_name

WIDER = (
    "The fit takes what a run has: only the spread of sizes is another. Raise grid.spacing or "
    "grid.min_params to get what is asked."
)


class _DryPlan(StudyPlan):
    """A study's plan whose clips may be stand-ins, and which composes each run once."""

    def __init__(self, study: StudyConfig, clips: Clips) -> None:
        super().__init__(study)
        self._clips = clips
        self._composed: dict[str, RunConfig] = {}

    @cached_property
    def index(self) -> Sequence[Clip]:
        """The training split's clips, or the stand-in."""
        return self._clips.of(self.base)

    def compose(self, spec: Spec) -> RunConfig:
        """Compose a spec's run, once."""
        if spec.name not in self._composed:
            self._composed[spec.name] = super().compose(spec)
        return self._composed[spec.name]


def expect(study: StudyConfig, clips: Clips) -> Planned:
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
    for budget in study.sitting:
        middle = centre * (budget / study.pilot.flops) ** study.pilot.exponent
        lowest = max(
            middle * study.grid.spacing ** -((study.grid.sizes - 1) / 2), study.grid.min_params
        )
        rungs = plan.sizes_around(middle)
        for i, rung in enumerate(rungs):
            spec = plan.point(Phase.grid, budget, rung)
            runs.append(_expected(plan, spec, rung, lowest * study.grid.spacing**i))
        if budget in study.replicates.budgets:
            more = plan.replicates(budget, rungs)
            runs += [Expected(spec, partial(plan.compose, spec)) for spec in more]
        shapes |= {(rung.width, rung.width // rung.head_dim) for rung in rungs}
    runs += [Expected(spec, partial(plan.compose, spec)) for spec in plan.twins()]
    base = plan.base
    notes += _bends(shapes, base.model.values_per_token, base.objective.prediction)
    if study.grid.max_extensions:
        notes.append(
            f"Not in the table: where a budget's best size is at an edge up to "
            f"{counted(study.grid.max_extensions, 'more size')} "
            f"{'is' if study.grid.max_extensions == 1 else 'are'} trained "
            f"({counted(len(study.sitting), 'budget')})."
        )
    if study.samples.prompts:
        notes.append("Not in the table: the clips drawn at the end (minutes on two cores).")
    return Planned(study.folder, runs, notes)


def _bends(shapes: set[tuple[int, int]], values: int, prediction: Prediction) -> list[str]:
    """Say what of a study's (width, heads) may bend its law (decisions 001 and 024)."""
    notes = []
    if narrow := sorted({width for width, _ in shapes if width < values}):
        listed = ", ".join(map(str, narrow))
        notes.append(
            f"Widths {listed} are below a token's {values} values: the rank of their outer layers "
            "limits the loss, and they bend the law of wider models. For a law of record raise "
            "grid.min_params."
        )
        if prediction is not Prediction.data:
            notes[-1] += (
                " Noise fills all values of a token and must pass through them: clips of few "
                "dimensions, as those of codec=pixels, ask for objective.prediction=data."
            )
    counts = sorted({heads for _, heads in shapes})
    if counts[0] == 1 < counts[-1]:
        notes.append(
            f"Some sizes have one head and others {' or '.join(map(str, counts[1:]))}: they differ "
            "in more than width. For a law of record set grid.heads=2."
        )
    return notes


def _expected(plan: StudyPlan, spec: Spec, rung: Rung, params: float) -> Expected:
    """Return the run of a point that was asked for with `params` parameters."""
    tokens = plan.tokens_for(rung, spec.budget)
    recipe = plan.recipe(rung, spec.budget)
    # The fit takes the parameters that a run has: a size is lost only where it meets the next one.
    nearer = plan.study.grid.spacing**0.5
    met = not 1 / nearer < rung.params / params < nearer
    doubts = [
        replace(doubt, remedy=WIDER) if doubt.name == "parameters" else doubt
        for doubt in rounding_warnings(recipe, tokens, rung, params if met else None)
    ]
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
