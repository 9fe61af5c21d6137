"""What a fault cost a run, from the run's own records."""

from dataclasses import dataclass
from pathlib import Path

from launch.run_folder.goodput import account
from launch.run_folder.records import read_launches
from trainer.run.attempt import read_timelines

CAUSES = ("detect", "requeue", "start", "load", "repeat")
FAULT_COLUMNS = ("fault", "outcome", *(f"{c} s" for c in CAUSES), "sum s", "samples lost",
                 "goodput at one an hour")  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A fault and its outcome; seconds by cause, those of the attempt before it left out."""

    name: str
    outcome: str
    seconds: dict[str, float]
    samples_lost: int

    @property
    def total(self) -> float:
        """Seconds lost to it."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of useful time if it happened once an hour."""
        return 1.0 - self.total / 3600.0

    def cells(self) -> list[str]:
        """Return its line of the table."""
        numbers = [f"{self.seconds[cause]:.0f}" for cause in CAUSES]
        return [self.name, self.outcome, *numbers, f"{self.total:.0f}", str(self.samples_lost),
                f"{self.goodput:.1%}"]  # fmt: skip


def seconds_lost(run_dir: Path) -> dict[str, float]:
    """Return what a run lost to faults: all but what its first start, undisturbed, cost anyway."""
    launches, timelines = read_launches(run_dir), read_timelines(run_dir)
    whole = account(launches, timelines, 0.0)
    # Up to its last sign of progress: the phase in which it hung is no part of it.
    undisturbed = timelines[0] | {"phase": "ended"}
    first = account(launches[:1], [undisturbed], timelines[0]["moved"])
    found = {cause: whole.lost[cause] - first.lost[cause] for cause in CAUSES}
    # An attempt that left in good order took a moment after its last step; it is time lost too.
    ends = [r for r in launches if r["event"] == "end"]
    stops = [
        max(end["time"] - timeline["moved"], 0.0)
        for end, timeline in zip(ends, timelines, strict=False)
        if end["outcome"] == "stopped"
    ]
    return found | {"detect": found["detect"] + sum(stops)}
