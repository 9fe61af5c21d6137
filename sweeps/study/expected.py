"""The runs that a study will start, before it starts any."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from data.checks import Check
from sweeps.study.spec import Spec
from trainer.kinds import AnyRun


@dataclass(frozen=True)
class Expected:
    """One run to be: its spec, how to compose it, and what rounding moved too far."""

    spec: Spec
    compose: Callable[[], AnyRun]
    doubts: list[Check] = field(default_factory=list)


@dataclass
class Planned:
    """All runs of a study that can be named now, and in words what cannot."""

    folder: Path
    runs: list[Expected]
    notes: list[str] = field(default_factory=list)
