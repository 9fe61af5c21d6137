"""Print the log of a run, and follow it.

usage: kinescale logs FOLDER [--follow] [lines=30]

examples:
  kinescale logs runs/smoke-1a2b3c4d5e
  kinescale logs runs/demo/runs/grid-c1e11-w64d2-1a2b3c4d5e --follow

Output of all ranks and of all attempts, and what the launcher did between them. Of a job that ended
before its run began (a module that is missing), what its script said.
"""

import sys
import time
from pathlib import Path

from data.shell import command

_POLL_SECONDS = 0.5
_CHUNK = 1 << 20


def follow(path: Path, position: int) -> None:
    """Print what is appended to a file from a position on, until the run has its result."""
    result = path.parent / "result.json"
    while True:
        ended = result.exists()  # looked at first: what was written before it is printed
        size = path.stat().st_size if path.exists() else 0
        while position < size:
            with path.open("rb") as file:
                file.seek(position)
                found = file.read(_CHUNK)
            position += len(found)
            sys.stdout.write(clean(found.decode("utf-8", errors="replace")))
            sys.stdout.flush()
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def clean(text: str) -> str:
    """Return a log without the control characters that act on a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r", "\n"))


def _no_log(run: Path) -> str:
    """Return why a run has no log, with the remedy."""
    from launch.local.process import LOG_FILE, METRICS_FILE

    if (run / METRICS_FILE).exists():  # started by hand, as by kinescale train
        return (
            f"{run / LOG_FILE}: does not exist: the run wrote to the terminal that started it. "
            f"Its steps: kinescale status {run}."
        )
    return f"{run / LOG_FILE}: does not exist yet: the run has not started. Use --follow."


@command(__doc__, prints_only=True)
def main(argv: list[str]) -> int:
    """Parse the command line and print."""
    from launch.local.process import LOG_FILE, tail_text
    from launch.run_folder.runs import find_runs, split_folders
    from launch.slurm.messages import read_messages

    try:
        folders, settings = split_folders(argv, "follow lines")
        runs = [run for folder in folders for run in find_runs(folder)]
        if len(runs) != 1:
            raise ValueError(f"folder: must name one run, but {len(runs)} were found. Name one.")
        lines = settings.get("lines", "30")
        if not lines.isdigit():
            raise ValueError(f"lines={lines}: must be a whole number of 0 or more. Use 30.")
        path = runs[0].path / LOG_FILE
        said = "" if path.exists() else read_messages(runs[0].path, int(lines))
        if said:
            print(f"{path.name} does not exist; what SLURM and the job's script said:")
            print(clean(said), flush=True)
        if not path.exists() and not said and settings.get("follow") != "true":
            raise ValueError(_no_log(runs[0].path))
        position = path.stat().st_size if path.exists() else 0
        tail = tail_text(path, int(lines)) if int(lines) else ""
        print(clean(tail), flush=True)  # a pipe would keep it back until more comes
        if settings.get("follow") == "true":
            follow(path, position)
        return 0
    except KeyboardInterrupt:  # how following ends
        return 0


if __name__ == "__main__":
    main.run()
