"""From a plan to the text of an sbatch script: one pure function.

``#SBATCH`` lines hold checked words only; what may hold anything (paths, values of variables)
stands below them and is quoted for the shell. What a run is called, its arguments and its captions
are not in the script at all: the supervisor reads them from ``plan.json`` and starts programs
without a shell.
"""

import shlex

from launch.slurm.plan import SubmitPlan
from launch.slurm_config import TimeLimitPolicy

# Enough to find programs and the home folder; a shell's other variables stay behind.
_ENVIRONMENT = ("HOME", "PATH", "USER", "LOGNAME", "LANG", "SLURM_CONF", "LD_LIBRARY_PATH")


def exported(plan: SubmitPlan) -> list[str]:
    """Return the names of the variables that jobs get from the submitting shell."""
    return [*_ENVIRONMENT, *plan.cluster.slurm.pass_env]


def options(plan: SubmitPlan) -> list[tuple[str, str | None]]:
    """Return sbatch's options in order; None stands for an option without a value."""
    site, shape = plan.cluster.slurm, plan.shape
    found: list[tuple[str, str | None]] = [
        ("job-name", plan.job_name),
        ("nodes", str(shape.nodes)),
        ("ntasks", str(shape.processes)),
        ("ntasks-per-node", str(shape.per_node)),
        ("cpus-per-task", str(site.cpus_per_process)),
        # Relative to the submission's folder, from which sbatch is called. A run's own output goes
        # to the run's folder; here lands what SLURM itself says.
        ("output", "%A_%a.out" if len(plan.tasks) > 1 else "%j.out"),
        ("open-mode", "append"),
        # Not NONE: that would load the user's login environment on the node.
        ("export", ",".join(exported(plan))),
        # To the supervisor alone (B:), which tells the ranks: torchrun would die of it.
        ("signal", f"B:USR1@{site.signal_seconds}"),
        # A node that dies gives the job back to the queue.
        ("requeue", None),
        # A dependency that can never hold would wait for ever.
        ("kill-on-invalid-dep", "yes"),
    ]
    for key in ("partition", "account", "qos", "constraint", "reservation"):
        if getattr(site, key):
            found.append((key, getattr(site, key)))
    if site.minutes:
        found.append(("time", str(site.minutes)))
    if site.memory_gib:
        found.append(("mem", f"{site.memory_gib}G"))
    if site.gpus_per_node:
        found.append(("gpus-per-node", str(min(site.gpus_per_node, shape.per_node))))
    if site.exclude:
        found.append(("exclude", ",".join(site.exclude)))
    if len(plan.tasks) > 1:
        throttle = f"%{site.array_throttle}" if site.array_throttle else ""
        found.append(("array", f"0-{len(plan.tasks) - 1}{throttle}"))
    for option in site.options:
        name, equals, value = option.partition("=")
        found.append((name, value if equals else None))
    return found


def dependency(plan: SubmitPlan, earlier: str) -> list[str]:
    """Return sbatch's arguments for a link of a chain after the job ``earlier``.

    One job waits for all of its name. Runs of an array wait for their own predecessor alone.
    """
    if plan.cluster.slurm.on_time_limit is not TimeLimitPolicy.chain or not earlier:
        return []
    if len(plan.tasks) > 1:
        return [f"--dependency=aftercorr:{earlier}"]
    return ["--dependency=singleton"]


def render(plan: SubmitPlan) -> str:
    """Return the script."""
    site = plan.cluster.slurm
    lines = ["#!/bin/bash", f"# {len(plan.tasks)} run(s), each in a folder that plan.json names."]
    for name, value in options(plan):
        lines.append(f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}")
    lines += ["set -eu", f"cd -- {shlex.quote(str(plan.workdir))}"]
    if site.prologue:
        lines.append(f". {shlex.quote(site.prologue)}")
    lines += [f"module load {shlex.quote(module)}" for module in site.modules]
    lines += [f"export {k}={shlex.quote(v)}" for k, v in plan.environment.items()]
    # exec: the supervisor gets the batch step's signals itself, and its status is the job's.
    python, folder = shlex.quote(plan.python), shlex.quote(str(plan.folder))
    lines.append(f"exec {python} -m launch.slurm.task {folder}")
    return "\n".join(lines) + "\n"
