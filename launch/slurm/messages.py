"""What SLURM and a job's script said outside of the run's log: in the submission's folder."""

import os
from pathlib import Path

from launch.local.process import tail_text
from launch.run_folder.records import SUBMISSION_FILE, read_json
from launch.slurm.accounting import ids_of


def message_file(run_dir: Path) -> Path | None:
    """Return the file with the messages of a run's last job, None where there is none."""
    folder = read_json(run_dir / SUBMISSION_FILE).get("folder")
    paths = [os.path.join(str(folder), f"{job}.out") for job in ids_of(run_dir)]
    found = [path for path in paths if os.path.isfile(path)]
    return Path(found[-1]) if found else None


def read_messages(run_dir: Path, lines: int) -> str:
    """Return the last lines of a run's messages, '' where there are none."""
    path = message_file(run_dir)
    return tail_text(path, lines) if path is not None else ""
