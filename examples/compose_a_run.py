"""Compose a run, read what it will be, freeze it into its folder: nothing is trained.

python examples/compose_a_run.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from kinescale import compose_run
from models.count import count_params
from trainer.config import load_run
from trainer.identity import freeze, run_name

settings = ["model=w64d2", "horizon.flops=1e12", "optim.lr=4e-3", "data.packs_per_step=2"]
run = compose_run(settings)  # the words of `kinescale train`
print(f"{run_name(run)}: {count_params(run.model).total:,} parameters")
print(f"a step is {run.data.packs_per_step} packs, {run.batch_tokens:,} tokens")

# What carries a run out is no part of the experiment, so two processes keep the name.
two = compose_run([*settings, "parallel.processes=2", "parallel.zero_stage=1"])
print(f"on two processes it is the same run: {run_name(two) == run_name(run)}")

# A seed is one.
other = compose_run([*settings, "seed=1"])
print(f"with another seed it is the same run: {run_name(other) == run_name(run)}")

# What cannot work is refused before anything starts: key, rule, remedy.
try:
    compose_run([*settings, "parallel.processes=3"])
except ValueError as error:
    print(f"refused: {error}")

with TemporaryDirectory() as root:
    folder = Path(root) / run_name(run)
    freeze(run, folder)  # `kinescale train --run FOLDER` trains it from here
    print(f"frozen and read again unchanged: {load_run(folder) == run}")
