"""The demo: real and rendered clips in, a fitted scaling law out.

usage: python -m sweeps.demo [key=value ...]     (make demo)

1. data     python -m data.demo root=datasets/demo
2. encode   python -m trainer.encode data.root=datasets/demo/video out=datasets/demo/latents
3. study    python -m sweeps.run study=demo
Safe to interrupt: every part continues where it was. Further key=value go to the study.
"""

import subprocess
import sys
import time

from launch.local.process import available_cores

_DATA = "datasets/demo"


def steps(overrides: list[str]) -> list[tuple[str, list[str]]]:
    """Return the demo's parts as (title, module and arguments)."""
    latents = [f"data.root={_DATA}/video", f"out={_DATA}/latents", "experiment=cpu_demo"]
    workers = f"data.decode_workers={max(1, available_cores() // 2)}"
    return [
        ("get, render and ingest clips", ["data.demo", f"root={_DATA}"]),
        ("encode clips into latents", ["trainer.encode", *latents, workers]),
        ("train, fit and report", ["sweeps.run", "study=demo", *overrides]),
    ]


def main(argv: list[str]) -> int:
    """Run the parts one after the other; stop at the first that fails."""
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    started = time.monotonic()
    parts = steps(argv)
    for number, (title, command) in enumerate(parts, 1):
        print(f"[{number}/{len(parts)}] {title}: python -m {' '.join(command)}", flush=True)
        process = subprocess.Popen([sys.executable, "-m", *command])
        code = _wait(process)
        if code:
            print(f"stopped with status {code}; the same command continues.", file=sys.stderr)
            return code
    spent = time.monotonic() - started
    print(f"demo finished in {int(spent // 60)} min {int(spent % 60)} s")
    return 0


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a part; it gets Ctrl-C from the terminal itself, and time to save."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
