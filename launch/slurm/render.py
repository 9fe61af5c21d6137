"""From a plan to the text of an sbatch script: one pure function.

``#SBATCH`` lines hold checked words only; what may hold anything (paths, values of variables)
stands below them and is quoted for the shell. What a run is called, its arguments and its captions
are not in the script at all: the supervisor reads them from ``plan.json`` and starts programs
without a shell.
"""

import shlex
from collections.abc import Mapping

from data.words import counted
from launch.sbatch_words import FAMILIES, OWN_OF_SBATCH
from launch.slurm.plan import SubmitPlan
from launch.slurm.prologue import site_lines, trap_lines
from launch.slurm_config import SlurmConfig, TimeLimitPolicy

# Enough to find programs, modules and the home folder; a shell's other variables stay behind.
_ENVIRONMENT = (
    "HOME", "PATH", "USER", "LOGNAME", "LANG", "SLURM_CONF", "LD_LIBRARY_PATH",
    "MODULESHOME", "MODULEPATH",
)  # fmt: skip
# Options that are keys of cluster.slurm, and so may be left to a person's defaults.
_KEYS = {"comment", "exclude", "time"}
# Names of sbatch's variables that are not those of their options.
_VARIABLES = {"array-inx": "array", "timelimit": "time", "mem-per-node": "mem"}


def environment(plan: SubmitPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return all that sbatch, and with it the job, gets of the submitting shell's variables.

    A person's defaults for sbatch (SBATCH_ACCOUNT and others) are among them, but for what the
    launcher or the plan decides: sbatch takes a variable before a line of the script.
    """
    kept = [*_ENVIRONMENT, *plan.cluster.slurm.pass_env]
    names = {name for name, _ in options(plan)}
    taken = OWN_OF_SBATCH - _KEYS | names
    for family in FAMILIES:
        taken |= family if family & names else set()
    kept += [name for name in environ if name.startswith("SBATCH_") and _option(name) not in taken]
    return {name: environ[name] for name in kept if name in environ}


def _option(variable: str) -> str:
    """Return the option that a variable of sbatch stands for."""
    name = variable.removeprefix("SBATCH_").lower().replace("_", "-")
    return _VARIABLES.get(name, name)


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
        # All that sbatch has, which is what environment() leaves it. NONE, and on SLURM 22.05 a
        # list of names too, load the login environment on the node, with every key in ~/.bashrc.
        ("export", "ALL"),
        # To the supervisor alone (B:), which tells the ranks: torchrun would die of it.
        ("signal", f"B:USR1@{site.signal_seconds}"),
        # A node that dies gives the job back to the queue.
        ("requeue", None),
        # A dependency that can never hold would wait for ever.
        ("kill-on-invalid-dep", "yes"),
    ]
    for key in ("partition", "account", "qos", "constraint", "reservation", "comment"):
        if getattr(site, key):
            found.append((key, getattr(site, key)))
    if site.minutes:
        found.append(("time", str(site.minutes)))
    if site.memory_gib:
        found.append(("mem", f"{site.memory_gib}G"))
    if site.num_gpus:
        found.append(_gpus(site, shape.per_node))
    if site.exclude:
        found.append(("exclude", ",".join(site.exclude)))
    if len(plan.tasks) > 1:
        throttle = f"%{site.array_throttle}" if site.array_throttle else ""
        found.append(("array", f"0-{len(plan.tasks) - 1}{throttle}"))
    for option in site.options:
        name, equals, value = option.partition("=")
        found.append((name, value if equals else None))
    return found


def _gpus(site: SlurmConfig, per_node: int) -> tuple[str, str]:
    """Return the option for a node's GPUs; a run that does not fill a node takes one a process."""
    wanted = f"{site.gpu_type}{':' * bool(site.gpu_type)}{min(site.num_gpus, per_node)}"
    name = site.gpu_option.value.replace("_", "-")
    return name, f"gpu:{wanted}" if name == "gres" else wanted


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
    lines = [
        "#!/bin/bash",
        f"# {counted(len(plan.tasks), 'run')}, each in a folder that plan.json names.",
    ]
    for name, value in options(plan):
        text = _quoted(value or "") if name == "comment" else value
        lines.append(f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={text}")
    lines += trap_lines(plan)
    lines.append(f"cd -- {shlex.quote(str(plan.workdir))}")
    lines += site_lines(plan.cluster.slurm)
    lines += [f"export {k}={shlex.quote(v)}" for k, v in plan.environment.items()]
    python, folder = shlex.quote(plan.python), shlex.quote(str(plan.folder))
    # An exec that fails drops the traps first.
    lines.append(
        f"command -v {python} >/dev/null || "
        "{ echo 'cluster.slurm.python: cannot be run on this node' >&2; exit 127; }"
    )
    # exec: the supervisor gets the batch step's signals itself, and its status is the job's.
    lines.append(f"exec {python} -m launch.slurm.task {folder}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a line as one word of an #SBATCH line: there backslashes count inside quotes."""
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'
