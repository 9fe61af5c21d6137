"""Measure the processor seconds that the status of many runs takes, start-up included.

usage: python -m benchmarks.status_speed [RUNS]

Makes run folders with a real frozen config, 200 lines of metrics, the files of four ranks and of
two attempts, two thirds of them finished, and asks for their table in a fresh process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from data.files import write_json
from launch.run_folder.records import append_launch
from trainer.kinds import compose_any, freeze_any

_LINES, _RANKS = 200, 4


def make_runs(root: Path, count: int) -> None:
    """Make run folders as the trainer and its supervisor leave them."""
    run = compose_any(["experiment=cpu_smoke", f"run_root={root.parent / 'frozen'}"])
    config = (freeze_any(run) / "config.yaml").read_text(encoding="utf-8")
    lines = [
        {"step": n, "tokens": 700 * n, "flops": 1e9 * n, "train_loss": 1 / n, "grad_norm": 0.1,
         "lr": 0.005, "seconds": 0.3 * n, "tokens_per_second": 2300.0}
        for n in range(1, _LINES + 1)
    ]  # fmt: skip
    metrics = "".join(json.dumps(line) + "\n" for line in lines)
    for number in range(count):
        folder = root / f"run-{number:04d}"
        (folder / "heartbeats").mkdir(parents=True)
        (folder / "timeline").mkdir()
        (folder / "attempts").mkdir()
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        (folder / "metrics.jsonl").write_text(metrics, encoding="utf-8")
        _add_attempts(folder)
        if number % 3:
            result = {"status": "finished", "loss": 0.25, "steps": _LINES}
            write_json(folder / "result.json", result, synced=False)


def _add_attempts(folder: Path) -> None:
    for attempt in (1, 2):
        append_launch(folder, "start", processes=_RANKS, submitted=1.0)
        append_launch(folder, "end", outcome="failed", reason="srun ended with 1")
        seconds = {"start": 5.0, "data": 1.0, "forward and backward": 20.0, "update": 2.0}
        record = {"attempt": attempt, "host": "n1", "started": 1e9, "moved": 1e9 + 30,
                  "written": 1e9 + 31, "first_step": 0, "step": _LINES, "phase": "update",
                  "phase_seconds": 0.1, "seconds": seconds}  # fmt: skip
        write_json(folder / f"timeline/attempt-{attempt:06d}.json", record, synced=False)
        (folder / f"attempts/{attempt:06d}").touch()
    for rank in range(_RANKS):
        sign = {"rank": rank, "host": "n1", "pid": 1, "step": _LINES, "phase": "update", "beat": 9,
                "time": "", "noticed": False}  # fmt: skip
        write_json(folder / f"heartbeats/rank-{rank:05d}.json", sign, synced=False)


def main() -> None:
    """Make the folders, ask three times, print the least."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as place:
        make_runs(Path(place) / "runs", count)
        words = [sys.executable, "-m", "launch.status", str(Path(place) / "runs")]
        spent = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"status of {count} runs: {min(spent):.2f} processor seconds")


if __name__ == "__main__":
    main()
