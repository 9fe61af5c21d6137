"""The runs that a study of arms will start."""

from functools import partial

from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.plan import ArmsPlan
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned


def expect(study: ArmsConfig, clips: Clips) -> Planned:
    """Plan every arm with every seed."""
    plan = ArmsPlan(study)
    notes = []
    if study.draws.prompts:
        notes.append("Not in the table: scoring, drawing and probing (about a tenth of the FLOPs).")
    runs = [Expected(spec, partial(plan.compose, spec)) for spec in plan.specs]
    return Planned(study.folder, runs, notes)
