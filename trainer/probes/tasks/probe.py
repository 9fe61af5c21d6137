"""Measure what a run makes of every task, on tiny worlds with truth: one page of numbers.

usage: kinescale tasks run=FOLDER [key=value ...]

example:
  kinescale tasks run=runs/tasks-1a2b3c clips=48 out=docs/studies/tasks
keys: out= (RUN/tasks) clips=48 seed=0 steps=24 guidance=2.0 strength=0.7
Image to video, extend forwards, backwards and by windows, backwards where time has an arrow,
connect, loop, edit, prototype to full, and text: each is drawn on the strip, the rotor or the
damped rotor, whose truth is known. Every measure stands beside its ceiling (true clips) and its
floors (a frozen clip, another clip, a cross-fade, a ping-pong ...), which it must beat: a task
counts as reached where the 95 % interval over clips of each difference leaves out zero, and
else as not reached. The run must have seen these worlds frame by frame: codec=pixels
codec.stride=[1,2,2] codec.channels=12, clips of kinescale worlds preset=tiny, and objective.tasks.
``make tasks`` films, trains and measures.
OUT becomes a folder with README.md (the table), picture.png (the first clip of each task) and
tasks.json (every figure).
"""

import io
import sys
from pathlib import Path

from rich.console import Console

from data.command_line import parse
from data.files import write_bytes, write_json, write_text
from data.notices import doing
from data.shell import command
from data.show.progress import Progress
from data.words import counted
from trainer.probes.tasks.config import TasksConfig

PAGE, FILE = "README.md", "tasks.json"


@command(__doc__, keys=TasksConfig)
def main(argv: list[str]) -> int:
    """Parse the command line, draw, measure and write; print the table."""
    from trainer.probes.tasks.page import PICTURE, console, page, picture
    from trainer.probes.tasks.subject import Subject

    config = parse(TasksConfig, argv)
    config.check()
    with doing(f"loading {config.run}"):
        subject = Subject.load(config)
    for warning in subject.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    count = counted(len(subject.orders), "clip")
    with Progress(f"draw {count}", Console(stderr=True)) as progress:
        drawn = subject.draw(lambda done, total: progress.update(done, total, ""))
    with doing("measuring the drawn clips"):
        result = subject.measure(drawn)
    out = Path(config.out) if config.out else Path(config.run) / "tasks"
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    picture(subject.worlds, drawn).save(buffer, format="PNG", optimize=True)
    write_bytes(out / PICTURE, buffer.getvalue())
    write_json(out / FILE, result)
    write_text(out / PAGE, page(result))
    print(console(result))
    print(f"written: {out / PAGE}")
    return 0


if __name__ == "__main__":
    main.run()
