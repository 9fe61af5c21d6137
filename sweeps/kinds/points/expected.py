"""The runs that a study of points will start, without those that follow from their results."""

from functools import partial

from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.plan import PointsPlan
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned


def expect(study: PointsConfig, clips: Clips) -> Planned:
    """Plan every point of a study of points; branches and repeats follow from its runs."""
    plan = PointsPlan(study)
    notes = []
    if study.repeat.seeds:
        notes.append(
            f"Not in the table: {len(study.repeat.seeds)} more seeds of each group's best."
        )
    if study.branches.every:
        notes.append(f"Not in the table: {study.branches.count} decay branches of each trunk.")
    runs = [Expected(p.spec, partial(plan.compose, p.spec)) for p in plan.points()]
    return Planned(study.folder, runs, notes)
