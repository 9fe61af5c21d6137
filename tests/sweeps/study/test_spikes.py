"""Spikes of the loss: what counts as one, and how many the committed law has."""

from pathlib import Path

import pytest

from sweeps.study.archive import read_curves
from sweeps.study.spikes import losses_of, spiked, spikes_in, spikes_said

LAW = Path(__file__).parents[3] / "docs/studies/cpu_isoflop"


@pytest.mark.parametrize(
    ("losses", "is_spike"),
    [
        ([0.40, 0.30, 0.25, 0.22], False),
        ([0.40, 0.30, 0.32, 0.22], True),
        ([0.40, 0.30, 0.308, 0.22], False),  # 2.7 % above the one before
        ([0.40, 0.30, 0.32, 0.33], False),  # a rise that stays is divergence, and no spike
        ([0.40, 0.42], False),
    ],
)
def test_a_spike_lies_three_per_cent_above_both_neighbours(
    losses: list[float], is_spike: bool
) -> None:
    assert spiked(losses) is is_spike


def test_seven_of_62_runs_of_the_committed_law_spiked() -> None:
    curves = {name: [loss for _, loss in curve] for name, curve in read_curves(LAW).items()}
    names, known = spikes_in(curves)
    assert (len(names), known) == (7, 62)
    assert spikes_said(names, known) == (
        f"7 of 62 runs had a validation more than 3% above its neighbours, e.g. {names[0]}; the "
        "bar is one in 50."
    )


def test_curves_of_runs_are_read_and_what_has_none_counts_nowhere(tmp_path: Path) -> None:
    for name, text in {
        "a": "step,loss\n1,0.5\n2,\n3,0.6\n4,0.4\n",
        "b": "step,loss\n1,0.5\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.csv").write_text(text)
    found = losses_of([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert found == {"a": [0.5, 0.6, 0.4], "b": [0.5]}
    assert spikes_in(found) == (["a"], 1)
