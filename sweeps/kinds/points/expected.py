"""The runs that a study of points will start, without those that follow from their results."""

from collections.abc import Sequence
from functools import partial

from data.words import counted
from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.plan import PointsPlan
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned
from trainer.config import RunConfig
from trainer.diffusion.horizon import Clip


class _DryPlan(PointsPlan):
    """A study's plan whose clips may be stand-ins: a plan needs no data set."""

    def __init__(self, study: PointsConfig, clips: Clips) -> None:
        super().__init__(study)
        self._dry = clips

    def _clips_of(self, run: RunConfig) -> Sequence[Clip]:
        """Return the training split's clips, the study's own stand-in, or the plan's."""
        if self.study.stand_in.num_frames or self._dry.stored(run):
            return super()._clips_of(run)
        return self._dry.of(run)


def expect(study: PointsConfig, clips: Clips) -> Planned:
    """Plan every point of a study of points; branches and repeats follow from its runs."""
    plan = _DryPlan(study, clips)
    notes = []
    if study.repeat.seeds:
        seeds = counted(len(study.repeat.seeds), "more seed")
        notes.append(f"Not in the table: {seeds} of each group's best.")
    if study.branches.every:
        branches = counted(study.branches.count, "decay branch", "decay branches")
        notes.append(f"Not in the table: {branches} of each trunk.")
    runs = [Expected(p.spec, partial(plan.compose, p.spec)) for p in plan.points()]
    return Planned(study.folder, runs, notes)
