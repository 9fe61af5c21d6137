"""Incidents are lines that rise by one at the step of each, whenever they are read."""

import json
from pathlib import Path

from trainer.mirror.events import Events
from trainer.run.attempt import Timeline


def test_counts_go_by_steps_and_know_resumes(tmp_path: Path) -> None:
    for attempt, first_step in ((1, 0), (2, 40), (3, 30)):
        line = Timeline(tmp_path, attempt)
        line.advance(first_step, "data")
        line.write()
    Timeline(tmp_path, 4).write()  # it ended before its first step
    path = tmp_path / "events.jsonl"
    lines = [(20, "spike"), (45, "rewind"), (33, "spike"), (50, "save failed")]
    path.write_text("".join(json.dumps({"step": s, "event": e}) + "\n" for s, e in lines[:2]))
    events = Events(tmp_path)
    assert [event["step"] for event in events.read()] == [20, 45]
    with path.open("a") as file:  # after a rewind steps are done again
        file.write("".join(json.dumps({"step": s, "event": e}) + "\n" for s, e in lines[2:]))
    assert [event["step"] for event in events.read()] == [33, 50]
    assert [events.counts(step)["events/spike"] for step in (19, 20, 32, 33)] == [0, 1, 1, 2]
    assert [events.counts(step)["events/resume"] for step in (29, 30, 40)] == [0, 1, 2]
    assert events.counts() == {
        "events/skip": 0, "events/spike": 2, "events/rewind": 1, "events/resume": 2,
        "events/save_failed": 1,
    }  # fmt: skip
    assert events.last == "step 50: save failed: "
