"""How far an attempt is, told to a person now and then."""

import pytest

from trainer.run.pace import Pace


def test_the_end_is_always_told_and_steps_before_it_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pace = Pace(step=3, total=9)
    assert not pace.due(4)
    assert pace.due(9)
    assert pace.rate(3) == 0
    assert pace.rate(6) > 0
    pace.tell(9, "loss 0.5")
    assert capsys.readouterr().err == "step 9/9  loss 0.5  ETA 00:00\n"
