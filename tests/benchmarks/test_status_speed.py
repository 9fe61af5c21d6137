"""The folders whose status is timed are those of whole runs."""

from pathlib import Path

from benchmarks.status_speed import make_runs
from launch.status import read_states


def test_the_measured_runs_are_read_without_a_problem(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", 3)
    states = read_states([tmp_path / "runs"], 0.0)
    assert [state.state for state in states] == ["failed", "done", "done"]
    assert [state.reason for state in states] == ["srun ended with 1", "", ""]
    assert all(state.attempts == 2 and state.steps for state in states)
