"""No command works in silence: what takes long is said on stderr before it begins, nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kinescale.commands import COMMANDS

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "docs/studies"
# Processor seconds that a command may work without a word: several times what any does.
LONGEST_SECONDS = 3.0
# Runs a command whose notices come at once; tells on its last line the processor seconds of the
# longest stretch of its own work that no notice covers.
WATCHED = """
import sys, time
from data import notices

class Stretches:
    depth, since, longest = 0, 0.0, 0.0

    def end(self):
        if self.depth == 0:
            self.longest = max(self.longest, time.process_time() - self.since)

stretches = Stretches()

def enter(pulse):
    pulse._say(0.0)
    stretches.end()
    stretches.depth += 1
    return pulse

def leave(pulse, *error):
    stretches.depth -= 1
    stretches.since = time.process_time()

notices.Pulse.__enter__, notices.Pulse.__exit__ = enter, leave
from data.shell import run_module
try:
    run_module(sys.argv[1], sys.argv[2:])
finally:
    stretches.end()
    print(stretches.longest, file=sys.stderr)
"""
IMPORTS = "importing libraries: 0 s so far"
SAYS = {
    "fit table={studies}/demo/runs.csv resamples=20": [
        IMPORTS,
        "fitting {studies}/demo/runs.csv, 20 resamples: 0 s so far",
    ],
    "predict study={studies}/demo gpus=2 days=.01 machine=cpu2 resamples=20 --json": [
        IMPORTS,
        "fitting the law of demo: 0 s so far",
        "looking for the best layout of 2 cpu2: 0 s so far",
    ],
    "plan-study study=smoke root={tmp} --json": [
        IMPORTS,
        "planning smoke: 0 s so far",
        "composing: 0%, 0 s, ETA unknown",
    ],
    "report --index {tmp}": [IMPORTS, "pages: 0%, 0 s, ETA unknown"],
    "generate run={tmp} prompt=x out={tmp}/x.mp4": [IMPORTS],
    "encode data.root={tmp} out={tmp}/out": [IMPORTS],
    "compare {studies}/demo {studies}/demo resamples=20 --json": [
        IMPORTS,
        "comparing: 0 s so far",
    ],
}


@pytest.mark.heavy
@pytest.mark.parametrize("line", SAYS, ids=[line.split(" ")[0] for line in SAYS])
def test_a_command_says_what_takes_long_before_it_begins(line: str, tmp_path: Path) -> None:
    name, *words = line.format(studies=STUDIES, tmp=tmp_path).split(" ")
    if name == "report":
        shutil.copytree(STUDIES / "demo", tmp_path / "demo")
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, COMMANDS[name].module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    *said, longest = done.stderr.splitlines()
    notices = [word.format(studies=STUDIES, tmp=tmp_path) for word in SAYS[line]]
    assert said[: len(notices)] == notices
    if done.returncode == 0:
        assert len(said) == len(notices)
    assert float(longest) < LONGEST_SECONDS
    assert "so far" not in done.stdout
    if "--json" in words:
        assert json.loads(done.stdout)
