"""The demo: real and rendered clips in, a fitted scaling law out.

usage: kinescale demo [key=value ...]     (make demo)

1. data     kinescale demo-data root=datasets/demo
2. encode   kinescale encode data.root=datasets/demo/video out=datasets/demo/latents
3. study    kinescale run study=demo

Safe to interrupt: every part continues where it was, and the end says what all starts took. Further
key=value go to the study.
"""

from pathlib import Path

from data.shell import command
from launch.local.parts import Part, run_parts
from launch.local.process import available_cores

_DATA = "datasets/demo"


def steps(overrides: list[str]) -> list[Part]:
    """Return the demo's parts as (title, command and arguments)."""
    latents = [f"data.root={_DATA}/video", f"out={_DATA}/latents", "experiment=cpu_demo"]
    workers = f"data.decode_workers={max(1, available_cores() // 2)}"
    return [
        ("get, render and ingest clips", ["demo-data", f"root={_DATA}"]),
        ("encode clips into latents", ["encode", *latents, workers]),
        ("train, fit and report", ["run", "study=demo", *overrides]),
    ]


def ledger_of(overrides: list[str]) -> Path:
    """Return the file, beside the study's folder, that counts the time of all starts."""
    given = dict(word.split("=", 1) for word in overrides if "=" in word)
    return Path(given.get("root", "runs")) / f"{given.get('name', 'demo')}-starts.json"


@command(__doc__, needs_words=False, kept="finished parts are kept; the same command continues")
def main(argv: list[str]) -> int:
    """Run the parts one after the other; stop at the first that fails."""
    return run_parts(steps(argv), ledger_of(argv))


if __name__ == "__main__":
    main.run()
