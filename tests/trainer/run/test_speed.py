"""Speed is that of the last window, which a slow-down moves at once."""

import pytest

from trainer.run.speed import Speed


def test_a_look_tells_of_what_came_since_the_look_before() -> None:
    speed = Speed(100, 50.0, tokens=1000)  # where an attempt resumed
    assert speed.look(110, 51.0, tokens=1100) == pytest.approx(
        {"step_seconds": 0.1, "tokens_per_second": 100.0}
    )
    assert speed.look(120, 56.0, tokens=1200) == pytest.approx(
        {"step_seconds": 0.5, "tokens_per_second": 20.0}
    )
    assert speed.look(120, 56.0, tokens=1200)["step_seconds"] < 1e-6  # nothing came: no error
