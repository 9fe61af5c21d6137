"""What a site's settings may hold: words and lines that SLURM and its scripts read right.

Options of sbatch stand on ``#SBATCH`` lines, which no shell sees; those of srun are arguments.
"""

import re

# What sbatch reads on an #SBATCH line as one plain word: no space, quote, hash or backslash. Signs
# that a shell would act on (& | * in a constraint) are data there.
_WORD = re.compile(r"[A-Za-z0-9_.,:=@/+&|*()\[\]%!-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]+")
_GRES = re.compile(r"(?:gres[/:])?gpu:")
_GPUS = re.compile(r"(?:([A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*):)?([0-9]{1,4})")
# Options that the launcher itself decides.
OWN_OF_SBATCH = {
    "array", "chdir", "clusters", "comment", "cpus-per-task", "dependency", "error", "exclude",
    "export", "export-file", "get-user-env", "input", "job-name", "kill-on-invalid-dep", "nodes",
    "ntasks", "ntasks-per-node", "open-mode", "output", "requeue", "no-requeue", "signal", "time",
    "parsable", "test-only", "wait", "wrap", "uid", "gid",
}  # fmt: skip
OWN_OF_SRUN = {
    "chdir", "container-env", "container-image", "container-mounts", "container-workdir",
    "cpus-per-task", "error", "export", "input", "jobid", "kill-on-bad-exit", "multi-prog",
    "no-kill", "nodes", "ntasks", "ntasks-per-node", "oom-kill-step", "output", "pty", "uid", "gid",
}  # fmt: skip
# Options of which a job may have one: what the config sets stands against the others too.
FAMILIES = (
    {"gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres"},
    {"mem", "mem-per-cpu", "mem-per-gpu"},
)


def check_word(key: str, value: str) -> None:
    """Raise ValueError for what sbatch would not read as one word."""
    if not _WORD.fullmatch(value):
        raise ValueError(
            f"{key}={value!r}: must be one word without spaces, quotes, # and backslashes. "
            "Use the name as the site spells it."
        )


def check_line(key: str, value: str) -> None:
    """Raise ValueError for what is more than a line, or acts on a terminal."""
    if not value.isprintable():
        raise ValueError(f"{key}={value!r}: must be one line of printable text. Use one line.")


def check_variable(key: str, name: str, example: str) -> None:
    """Raise ValueError for what is no name of a variable."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{key}: must be a variable's name. Use for example {example}.")


def check_option(key: str, option: str, program: str, own: set[str]) -> None:
    """Raise ValueError for what is no long option, or one that the launcher sets."""
    if not _OPTION.fullmatch(option.partition("=")[0]) or option.partition("=")[0] in own:
        raise ValueError(
            f"{key}: must be a long {program} option that the launcher does not set itself. "
            "See the other keys of cluster.slurm."
        )


def parse_gpus(key: str, text: str) -> tuple[str, int]:
    """Return type ('' for any) and number of ``h100:8`` or ``8``; raise ValueError for others."""
    refuse_mixture(key, text)
    found = _GPUS.fullmatch(text)
    if found is None or not int(found[2]):
        raise ValueError(
            f"{key}={text!r}: must be TYPE:NUMBER or NUMBER, of one node. Use for example h100:8."
        )
    return found[1] or "", int(found[2])


def refuse_mixture(key: str, text: str) -> None:
    """Raise ValueError where a request names two types of GPU.

    text: as --gpus takes it, h100:4,a100:4, or --gres, gpu:h100:4,gpu:a100:4,nvme:1.
    """
    requests = [_GRES.sub("", part) for part in text.split(",") if _is_of_gpus(part)]
    types = sorted({part.split(":")[0] for part in requests if not part.split(":")[0].isdigit()})
    if len(types) > 1:
        raise ValueError(
            f"{key}={text!r}: must name one type of GPU, since each step waits for its slowest "
            f"rank; it names {' and '.join(types)}. Use one of them, and another run for the other."
        )


def _is_of_gpus(part: str) -> bool:
    """Tell a request of GPUs from one of another generic resource, such as nvme:1."""
    return bool(_GRES.match(part)) or _GPUS.fullmatch(part) is not None
