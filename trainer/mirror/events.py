"""What happened to a run, as counts: in a dashboard each incident is a step of a line."""

from bisect import bisect_right
from pathlib import Path
from typing import Any

from trainer.mirror.tail import Tail
from trainer.run.attempt import read_timelines

# Those that every run has a line of, from 0 on, so that the first incident is a step too.
_ALWAYS = ("skip", "spike", "rewind", "resume")


class Events:
    """The incidents of a run: those of events.jsonl, which is never cut, and its resumes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._tail = folder, Tail(folder / "events.jsonl")
        self._steps: dict[str, list[int]] = {kind: [] for kind in _ALWAYS}
        self.last = ""

    def read(self) -> list[dict[str, Any]]:
        """Take in what is new and return the new lines of events.jsonl."""
        new = self._tail.read()
        for event in new:
            kind = str(event.get("event", "event")).replace(" ", "_")
            steps = self._steps.setdefault(kind, [])
            steps.insert(bisect_right(steps, event["step"]), event["step"])
            self.last = describe(event)
        firsts = [t.get("first_step", -1) for t in read_timelines(self._folder)[1:]]
        self._steps["resume"] = sorted(step for step in firsts if step >= 0)
        return new

    def counts(self, step: int | None = None) -> dict[str, int]:
        """Return how many incidents of each kind there were up to a step, or in all.

        By their steps and not by when they were read: whoever sends a run later, or twice, sends
        the same.
        """
        return {
            f"events/{kind}": len(steps) if step is None else bisect_right(steps, step)
            for kind, steps in self._steps.items()
        }


def describe(event: dict[str, Any]) -> str:
    """Return an incident in a line."""
    return f"step {event['step']}: {event.get('event', 'event')}: {event.get('reason', '')}"[:500]
