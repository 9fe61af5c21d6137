"""Write runs as TensorBoard's event files.

usage: kinescale tensorboard FOLDER [FOLDER ...]

examples:
  kinescale tensorboard runs/smoke-1a2b3c4d5e
  kinescale tensorboard runs/demo           # every run of a study
  tensorboard --logdir runs

With log.tensorboard=true a run writes them as it goes. This makes them of runs that were trained
without, or whose mirror was killed: RUN/tensorboard is made anew of metrics.jsonl. Leave runs that
are being trained.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.reading import read_tail
from data.secrets import masked
from data.shell import command
from trainer.log_config import need_tensorboard
from trainer.mirror.events import Events, describe
from trainer.mirror.tail import Tail
from trainer.mirror.wandb_run import numbers

FOLDER = "tensorboard"
_NAMES = "events.out.tfevents.*"
_CONFIG_BYTES = 1 << 20


class TensorBoardMirror:
    """One run's mirror: records in, one event file out, which holds what metrics.jsonl holds.

    A resume or a rewind replaces metrics.jsonl by one that ends earlier. The event file is begun
    anew then, as at every start, so that no step is in it twice whoever reads it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tail, self._events = Tail(folder / "metrics.jsonl"), Events(folder)
        self._file: _EventFile | None = None
        self._beginnings = 0

    def catch_up(self) -> int:
        """Write the records that are new; return how many. Raises OSError."""
        records = self._tail.read()
        if self._file is None or self._tail.beginnings != self._beginnings:
            self._beginnings = self._tail.beginnings
            self._file = self._begin()
        for event in self._events.read() if records else ():
            self._file.add_text("events", masked(describe(event), os.environ), event["step"])
        for record in records:
            row = {key: value for key, value in numbers(record).items() if key != "step"}
            self._file.add(row | self._events.counts(record["step"]), record["step"])
        if records:
            self._file.flush()
        return len(records)

    def finish(self) -> None:
        """Write the rest and close."""
        self.catch_up()
        if self._file is not None:
            self._file.close()

    def _begin(self) -> "_EventFile":
        """Begin an event file in the place of the one before."""
        if self._file is not None:
            self._file.close()
        place = self._folder / FOLDER
        place.mkdir(exist_ok=True)
        for path in place.glob(_NAMES):
            path.unlink()
        self._events = Events(self._folder)  # its texts are written again, too
        begun = _EventFile(place)
        config = masked(read_tail(self._folder / "config.yaml", _CONFIG_BYTES)[0], os.environ)
        # Markdown's way to show text as it is.
        begun.add_text("config", "".join(f"    {line}\n" for line in config.splitlines()), 0)
        begun.flush()
        return begun


class _EventFile:
    """An event file, written in this thread: a row is one event, and a full disk an OSError.

    tensorboardX's SummaryWriter hands each value to a queue and another thread: 20 times slower.
    """

    def __init__(self, place: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._writer = EventsWriter(str(place / "events"))
        # Tells a TensorBoard that is looking on to drop what it held of the file before.
        self._write(0, session_log=SessionLog(status=SessionLog.START))

    def add(self, row: Mapping[str, float], step: int) -> None:
        """Add the values of a step."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in row.items()]
        self._write(step, summary=Summary(value=values))

    def add_text(self, tag: str, text: str, step: int) -> None:
        """Add a text, which TensorBoard shows as Markdown."""
        from tensorboardX.summary import text as as_summary

        self._write(step, summary=as_summary(tag, text))

    def flush(self) -> None:
        """Hand what was added to the system."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()

    def _write(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **what))


@command(__doc__, kept="what was written is kept. Run the same command again.")
def main(argv: list[str]) -> int:
    """Write the runs of the folders on the command line."""
    from trainer.mirror.sync import find_folders

    folders = [found for word in argv for found in find_folders(Path(word))]
    need_tensorboard("kinescale tensorboard")
    for number, folder in enumerate(folders, 1):
        TensorBoardMirror(folder).finish()
        print(f"[{number}/{len(folders)}] {folder / FOLDER}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main.run())
