"""A phase that a signal ended is the last one, also where its runs were done before it came."""

import pytest

from launch.config import ClusterConfig
from launch.local.run import Outcome, Status
from sweeps.study import phases


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("run", Status.interrupted, stopped=True),
        Outcome("run", Status.not_started, stopped=True),
        Outcome("run", Status.done, stopped=True),
    ],
    ids=lambda outcome: outcome.status.value,
)
def test_no_phase_follows_one_that_was_stopped(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "run_on", lambda *_: [outcome])
    with pytest.raises(phases.Interrupted):
        phases.launch_phase("grid", [], ClusterConfig())


def test_a_phase_that_came_to_its_end_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "run_on", lambda *_: [Outcome("run", Status.done)])
    assert phases.launch_phase("grid", [], ClusterConfig())
