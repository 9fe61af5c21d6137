"""The runs that a study of emergence will start, without those that follow from results."""

from collections.abc import Sequence
from functools import cached_property, partial

from data.words import counted
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.kinds.emergence.plan import EmergencePlan
from sweeps.study.clips import Clips
from sweeps.study.expected import Expected, Planned
from trainer.diffusion.horizon import Clip


class _DryPlan(EmergencePlan):
    """A study's plan whose clips may be stand-ins: a plan needs no data set."""

    def __init__(self, study: EmergenceConfig, clips: Clips) -> None:
        super().__init__(study)
        self._dry = clips

    @cached_property
    def clips(self) -> Sequence[Clip]:
        """The training split's clips, or the stand-in."""
        return self._dry.of(self.base)


def expect(study: EmergenceConfig, clips: Clips) -> Planned:
    """Plan every couple of this sitting; best sizes again follow from its runs."""
    plan = _DryPlan(study, clips)
    couples = plan.couples(study.sitting)
    notes = [f"Not in the table: {counted(len(couples), 'probe')} of a run beside its twin."]
    for what, again in (("best size", study.again), ("knee", study.knees)):
        if again.seeds:
            seeds = counted(len(again.seeds), "more seed")
            notes.append(f"Not in the table: {seeds} of each {what}, law and twin.")
    specs = [spec for couple in couples for spec in couple.specs]
    return Planned(study.folder, [Expected(s, partial(plan.compose, s)) for s in specs], notes)
