"""The kinds of study, by the name that a study's YAML gives as its ``schema``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.kinds.arms import expected as arms
from sweeps.kinds.arms.config import ArmsConfig
from sweeps.kinds.arms.run import ArmsRunner
from sweeps.kinds.emergence import expected as emergence
from sweeps.kinds.emergence.config import EmergenceConfig
from sweeps.kinds.emergence.run import EmergenceRunner
from sweeps.kinds.isoflop import expected as isoflop
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.kinds.isoflop.run import IsoflopRunner
from sweeps.kinds.points import expected as points
from sweeps.kinds.points.config import PointsConfig
from sweeps.kinds.points.run import PointsRunner
from sweeps.study.clips import Clips
from sweeps.study.config import Study
from sweeps.study.expected import Planned
from sweeps.study.runner import StudyRunner


@dataclass(frozen=True)
class Kind:
    """A kind of study.

    schema: what its YAML may hold. does: what a study of it does, for messages.
    expect: the runs that it will start. runner: carries it out.
    """

    schema: type[Study]
    does: str
    expect: Callable[[Any, Clips], Planned]
    runner: Callable[[Any, Sequence[str]], StudyRunner]


KINDS = {
    "isoflop": Kind(StudyConfig, "fits a law", isoflop.expect, IsoflopRunner),
    "arms": Kind(ArmsConfig, "compares arms", arms.expect, ArmsRunner),
    "emergence": Kind(
        EmergenceConfig, "asks when abilities begin", emergence.expect, EmergenceRunner
    ),
    "points": Kind(PointsConfig, "is one of points", points.expect, PointsRunner),
}
OLD_NAMES = {"grid": "points"}  # what YAMLs of before 2026-11-30 say


def plan_study(study: Study, clips: Clips) -> Planned:
    """Plan a study of any kind.

    Raises:
        ValueError: a shape, a run or the study itself cannot be.
    """
    planned = KINDS[study.kind].expect(study, clips)
    names = [expected.spec.name for expected in planned.runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        planned.notes.append(f"Runs of one name: {', '.join(twice[:3])}; one folder serves both.")
    return planned
