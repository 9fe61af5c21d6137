"""Twins of the runs that suffer, and the table of what was injected and what came of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ...conftest import AddRow
from .harness import Group
from .runs import lost_samples, prepare, repeated_steps

COLUMNS = ("fault", "injected", "detected", "recovered", "samples lost", "steps repeated")
Twin = Callable[..., Path]


@dataclass
class Row:
    """What came of all injections of one fault.

    policy: the run leaves samples out, or ends, because its config says so.
    """

    fault: str
    policy: bool = False
    injected: int = 0
    detected: int = 0
    recovered: int = 0
    lost: int = 0
    repeated: int = 0

    def inject(self) -> "Row":
        """Count an injection."""
        self.injected += 1
        return self

    def detect(self) -> "Row":
        """Count that the run, or its launcher, noticed."""
        self.detected += 1
        return self

    def recover(self, folder: Path, twin: Path | None = None) -> None:
        """Count a run that went on to its end, what it lost and what it did twice."""
        self.recovered += 1
        self.repeated += repeated_steps(folder)
        if twin is not None:
            self.lost += lost_samples(folder, twin)


Inject = Callable[..., Row]


@pytest.fixture(scope="session")
def inject(summary_table: Callable[[str, Sequence[str]], AddRow]) -> Iterator[Inject]:
    """Return ``inject(fault, policy)``, which counts an injection and returns its row."""
    rows: dict[str, Row] = {}
    yield lambda fault, policy=False: rows.setdefault(fault, Row(fault, policy)).inject()
    add_row = summary_table("faults", COLUMNS)
    for r in rows.values():
        recovered = "ends" if r.policy and not r.recovered else r.recovered
        lost = "by policy" if r.policy else r.lost
        add_row(r.fault, r.injected, r.detected, recovered, lost, r.repeated)


@pytest.fixture(scope="session")
def twin(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Twin:
    """Return ``twin(world, *overrides)``: the folder of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("twins")
    made: dict[tuple[object, ...], Path] = {}

    def train(world: int, *overrides: str) -> Path:
        key = (world, *overrides)
        if key not in made:
            made[key] = prepare(latents, root / f"twin-{len(made)}", *overrides)
            finish(made[key], world)
        return made[key]

    return train


def finish(folder: Path, world: int) -> str:
    """Start or resume a run without faults, assert that it ends well; return its log."""
    with Group(folder, world) as group:
        codes = group.wait()
        assert codes == [0] * world, group.logs()
        assert (folder / "result.json").exists()
        return group.logs()
