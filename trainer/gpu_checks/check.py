"""Ten minutes for the first person with a GPU: everything here that only a GPU can prove.

usage: kinescale gpu-check [--device cuda|cpu] [--quick] [--only CHECK] [--json FILE]
       make gpu-check

checks:
  attention   torch's kernels (FA2, FA3), flash-attn and Transformer Engine against the loop
  kernels     Transformer Engine's norm, float8 products, overlapping reductions; their time
  gradients   bf16 where thousands of rows share one value, and at width
  arithmetic  fp32 against the CPU, bf16 against fp32, compiled and recomputed against plain
  layouts     every layout of 1, 2, 4, 8 or 16 processes that fits, ZeRO 0 to 3, against one process
  resume      a run stopped and resumed through the real trainer, bit by bit
  memory      peak bytes of every ZeRO stage
  sampling    a clip drawn on the device and on CPU; seconds a clip
  links       packs between peers; the record of collectives
  speed       tokens per second and the share of a matmul's FLOP/s, by size, precision, compiler

Each check is a process of its own with a time limit, so that none can stop another. Prints one row
per comparison; a row without a tolerance is a figure. Exit status: 0 all passed or skipped, 1 one
failed, 2 there is no GPU. ``--device cpu`` proves only that this command itself runs; ``--quick``
takes the smallest sizes.

NOTE: the authors had no GPU, so this command has never run on one. Its ten minutes are an estimate
for one H100; its tolerances are estimates too, and a failure may be theirs.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from data.shell import OptionParser, command
from trainer.gpu_checks.report import (
    Case,
    Row,
    Settings,
    Verdict,
    append,
    heading,
    read_rows,
    run_cases,
)

# Check -> most seconds it may take.
CHECKS = {
    "attention": 120,
    "kernels": 120,
    "gradients": 60,
    "arithmetic": 300,
    "layouts": 1200,
    "resume": 240,
    "memory": 300,
    "sampling": 120,
    "links": 180,
    "speed": 420,
}
UNPROVEN = "This command has not yet been run on a GPU by the authors."
NO_GPU = (
    "error: device=cuda: torch sees no CUDA device here. Run this on a machine with a GPU and the "
    "CUDA wheel of torch, or use --device cpu, which proves only that the command runs."
)


@command(__doc__, needs_words=False, kept="no row was written. Run the same command again.")
def main(argv: list[str]) -> int:
    """Run the checks; return the exit status."""
    arguments = _parse(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    os.environ["DS_ACCELERATOR"] = arguments.device
    for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(key, None)  # a world that this command was started in is not its own
    if arguments.rows:
        settings = Settings(torch.device(arguments.device), arguments.quick)
        for row in run_cases(arguments.only, _cases(arguments.only)(settings)):
            append(arguments.rows, row)
        return 0
    begun = time.monotonic()
    print(_preamble(arguments.device), heading(), sep="\n", flush=True)
    rows: list[Row] = []
    for check in [arguments.only] if arguments.only else CHECKS:
        for row in _run_check(check, arguments):
            print(row, flush=True)
            rows.append(row)
    counts = {v.value: sum(row.verdict is v for row in rows) for v in Verdict}
    print(", ".join(f"{n} {v}" for v, n in counts.items()), f"in {time.monotonic() - begun:.0f} s")
    if arguments.json:
        record = {"machine": _machine(arguments.device), "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(counts[Verdict.failed.value] > 0)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = OptionParser()
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=tuple(CHECKS), metavar="CHECK")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # the process of one check
    return parser.parse_args(argv)


def _cases(check: str) -> Callable[[Settings], Iterator[Case]]:
    """Return what yields the cases of a check; only what it needs is imported."""
    if check == "attention":
        from trainer.gpu_checks.attention import cases
    elif check == "kernels":
        from trainer.gpu_checks.kernels import cases
    elif check == "gradients":
        from trainer.gpu_checks.gradients import cases
    elif check == "sampling":
        from trainer.gpu_checks.sampling import cases
    elif check == "links":
        from trainer.gpu_checks.links import cases
    elif check == "arithmetic":
        from trainer.gpu_checks.arithmetic import cases
    elif check == "layouts":
        from trainer.gpu_checks.layouts import cases
    elif check == "memory":
        from trainer.gpu_checks.layouts import memory_cases as cases
    elif check == "resume":
        from trainer.gpu_checks.resume import cases
    else:
        from trainer.gpu_checks.speed import cases
    return cases


def _run_check(check: str, arguments: argparse.Namespace) -> list[Row]:
    """Run one check in a process of its own; if that dies, one more row says how."""
    with tempfile.TemporaryDirectory() as scratch:
        path, log = Path(scratch) / "rows.jsonl", Path(scratch) / "log"
        command = [
            sys.executable,
            "-m",
            "trainer.gpu_checks",
            "--only",
            check,
            "--rows",
            str(path),
        ]
        command += ["--device", arguments.device, *(["--quick"] if arguments.quick else [])]
        begun = time.monotonic()
        with log.open("w") as stream:
            status = _wait(
                subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True),
                CHECKS[check],
            )
        rows = read_rows(path)
        if status != 0:
            late = f"took more than {CHECKS[check]} s"
            ending = late if status is None else f"its process ended with status {status}"
            seconds = time.monotonic() - begun
            rows.append(Row(check, "the whole check", ending, "status 0", seconds, Verdict.failed))
        if any(row.verdict is Verdict.failed for row in rows):
            print(log.read_text()[-4000:], file=sys.stderr, flush=True)
        return rows


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Return a process's status; None if it took longer and was ended with all it started."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:  # late, or this command was interrupted
            os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its ranks when asked kindly
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _preamble(device: str) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in _machine(device).items())
    cpu = "Device cpu: proves that this command runs, and nothing about a GPU.\n"
    return f"{UNPROVEN}\n{cpu if device == 'cpu' else ''}{machine}"


def _machine(device: str) -> dict[str, str]:
    """Return what the figures were measured on."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "device": device}
    if device == "cuda":
        found["gpus"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        found["cuda"] = str(torch.version.cuda)
    return found
