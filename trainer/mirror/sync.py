"""Send runs to W&B later: what a server missed, or what was logged offline.

usage: kinescale wandb-sync FOLDER [FOLDER ...] [seconds=300]

examples:
  wandb login
  kinescale wandb-sync runs/smoke-1a2b3c4d5e
  kinescale wandb-sync runs/demo            # every run of a study

Reads metrics.jsonl and result.json, the truth of a run, and sends what its W&B run does not hold
yet. Needs a login (or WANDB_API_KEY). Runs that are being trained send for themselves: leave them.
seconds: how long one run may take.
"""

import os
import subprocess
import sys
from pathlib import Path

from data.shell import command
from trainer.log_config import WandbMode
from trainer.mirror.tail import read_sent
from trainer.mirror.wandb_run import own_environment


def find_folders(folder: Path) -> list[Path]:
    """Return the run folders in a folder, or itself. Raises ValueError where there is none."""
    found = [folder] if (folder / "metrics.jsonl").is_file() else []
    found += sorted(path.parent for path in folder.glob("runs/*/metrics.jsonl"))
    found += sorted(path.parent for path in folder.glob("*/metrics.jsonl"))
    if not found:
        raise ValueError(f"FOLDER={folder}: holds no run with metrics.jsonl. Give a run's folder.")
    return list(dict.fromkeys(found))


def sync(folder: Path, seconds: float) -> bool:
    """Send one run; return whether the server took all of it."""
    mode = WandbMode.online.value
    command = [sys.executable, "-m", "trainer.mirror", str(folder), mode, "alone"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=own_environment(),
            timeout=seconds,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return False
    sent = read_sent(folder)
    return done.returncode == 0 and not sent.offline


@command(__doc__, kept="what was sent stays sent. Run the same command again.")
def main(argv: list[str]) -> int:
    """Parse the command line and send; exit status 1 where a run could not be sent."""
    seconds = _seconds([word for word in argv if word.startswith("seconds=")])
    given = [Path(word) for word in argv if not word.startswith("seconds=")]
    folders = [found for folder in given for found in find_folders(folder)]
    failed = 0
    for number, folder in enumerate(folders, 1):
        sent = sync(folder, seconds)
        failed += not sent
        print(f"[{number}/{len(folders)}] {folder}: {'sent' if sent else 'NOT sent'}", flush=True)
    if failed:
        key = "" if "WANDB_API_KEY" in os.environ else " Is there a login? Run: wandb login"
        print(f"{failed} of {len(folders)} runs were not sent.{key}", file=sys.stderr)
    return 1 if failed else 0


def _seconds(words: list[str]) -> float:
    text = words[-1].partition("=")[2] if words else "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds={text}: must be a positive number. Use 300.")
    return seconds


if __name__ == "__main__":
    main.run()
