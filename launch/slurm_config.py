"""Schema of a SLURM site and of how jobs are treated there; values live in ``conf/cluster``."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from data.secrets import is_secret_name

Count = Annotated[int, Ge(1)]

# What sbatch reads on an #SBATCH line as one plain word: no space, quote, hash or backslash. Signs
# that a shell would act on (& | * in a constraint) are data there: no shell sees these lines.
_WORD = re.compile(r"[A-Za-z0-9_.,:=@/+&|*()\[\]%!-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]+")
# Options that the launcher itself decides.
_OWN = {
    "array", "chdir", "comment", "cpus-per-task", "dependency", "error", "exclude", "export",
    "input", "job-name", "kill-on-invalid-dep", "nodes", "ntasks", "ntasks-per-node", "open-mode",
    "output", "requeue", "no-requeue", "signal", "time", "parsable", "wait", "wrap", "uid", "gid",
}  # fmt: skip


class Starter(StrEnum):
    """What starts the ranks: srun one process each, or srun one torchrun a node."""

    srun = "srun"
    torchrun = "torchrun"


class TimeLimitPolicy(StrEnum):
    """How a run goes on after its time limit: the same job is queued again, or a next one waits.

    requeue: needs the site's leave to requeue. chain: ``chain_length`` jobs are submitted at once,
    each waiting for the one before.
    """

    requeue = "requeue"
    chain = "chain"


@dataclass
class ContainerConfig:
    """A container for the ranks, by pyxis and enroot; no image, no container."""

    image: Annotated[
        str,
        Doc(
            "As enroot takes it, such as nvcr.io#nvidia/pytorch:25.10-py3 or a .sqsh file; "
            "empty for no container."
        ),
    ] = ""
    mounts: Annotated[
        list[str],
        Doc(
            "HOST:CONTAINER[:ro] each; the working folder, the data and the runs must be "
            "among them."
        ),
    ] = field(default_factory=list)
    workdir: Annotated[
        str, Doc("Where ranks start in it; empty takes the working folder of the submission.")
    ] = ""
    python: Annotated[str, Doc("The interpreter in the container.")] = "python3"


@dataclass
class SlurmConfig:
    """How jobs are described to SLURM and carried through failures."""

    partition: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    account: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    qos: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    constraint: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    reservation: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    exclude: Annotated[list[str], Doc("Nodes not to use.")] = field(default_factory=list)
    options: Annotated[
        list[str], Doc("Further sbatch options, as [gres=gpu:h100:8, exclusive].")
    ] = field(default_factory=list)
    processes_per_node: Annotated[Count, Doc("Ranks that a node holds.")] = 8
    cpus_per_process: Annotated[Count, Doc("Cores of a rank.")] = 1
    gpus_per_node: Annotated[
        int,
        Ge(0),
        Doc(
            "Asked for each node of a run that fills its nodes, while a smaller run asks "
            "for one GPU a process; 0 asks for none."
        ),
    ] = 0
    memory_gib: Annotated[int, Ge(0), Doc("Memory of a node; 0 leaves it to the partition.")] = 0
    minutes: Annotated[int, Ge(0), Doc("Time limit of a job; 0 leaves it to the partition.")] = 0
    signal_seconds: Annotated[
        Count,
        Doc(
            "How long before the limit a run is told to save; SLURM may tell it up to 60 s "
            "earlier, and no later."
        ),
    ] = 180
    on_time_limit: Annotated[
        TimeLimitPolicy,
        Doc(
            "How a run goes on after its time limit: requeue needs the site's leave, chain "
            "submits chain_length jobs at once, each waiting for the one before."
        ),
    ] = TimeLimitPolicy.requeue
    chain_length: Annotated[Count, Doc("Jobs of a chain.")] = 1
    array_throttle: Annotated[int, Ge(0), Doc("Runs of one array at once; 0 sets no limit.")] = 0
    max_array: Annotated[
        Count, Doc("The site's MaxArraySize - 1; longer studies become several arrays.")
    ] = 1000
    backoff_seconds: Annotated[
        float, Ge(0), Doc("Wait before the first repetition of a failed run, doubled each time.")
    ] = 5.0
    silent_seconds: Annotated[
        float,
        Ge(0),
        Doc(
            "A run that gives no sign of life for so long is killed and queued again; 0 "
            "turns it off."
        ),
    ] = 900.0
    exclude_suspects: Annotated[
        bool, Doc("Queue a stalled run again without the nodes that its watchdog blames.")
    ] = True
    starter: Annotated[
        Starter, Doc("What starts the ranks: srun one process each, or srun one torchrun a node.")
    ] = Starter.srun
    container: ContainerConfig = field(default_factory=ContainerConfig)
    prologue: Annotated[str, Doc("A shell file of the site that every job sources.")] = ""
    modules: Annotated[list[str], Doc("Modules that are loaded before it.")] = field(
        default_factory=list
    )
    env: Annotated[list[str], Doc("Variables of every job, as [NAME=value].")] = field(
        default_factory=list
    )
    pass_env: Annotated[
        list[str],
        Doc(
            "Names of variables handed over from the submitting shell; the place for keys. "
            "Their values are in no file of this project, but SLURM keeps a job's environment in "
            "its controller's files until the job ends, and in its accounting for good where "
            "AccountingStoreFlags holds job_env."
        ),
    ] = field(default_factory=list)
    python: Annotated[str, Doc("Interpreter on the nodes; empty takes the one that submits.")] = ""

    def check(self) -> None:
        """Raise ValueError on what SLURM would misread, or what must not be written."""
        for key in ("partition", "account", "qos", "constraint", "reservation"):
            _check_word(f"cluster.slurm.{key}", getattr(self, key))
        for node in self.exclude:
            _check_word("cluster.slurm.exclude", node)
        self._check_options()
        self._check_numbers()
        self._check_environment()
        for key, text in (("prologue", self.prologue), ("python", self.python)):
            _check_line(f"cluster.slurm.{key}", text)
        for text in [*self.modules, *self.container.mounts, self.container.image]:
            _check_line("cluster.slurm.modules, container", text)

    def _check_options(self) -> None:
        for option in self.options:
            name, _, value = option.partition("=")
            key = f"cluster.slurm.options={option!r}"
            if not _OPTION.fullmatch(name) or name in _OWN:
                raise ValueError(
                    f"{key}: must be a long sbatch option that the launcher does not set itself. "
                    "See the other keys of cluster.slurm."
                )
            _check_word(key, value)

    def _check_numbers(self) -> None:
        if self.minutes and self.signal_seconds >= 60 * self.minutes:
            raise ValueError(
                f"cluster.slurm.signal_seconds={self.signal_seconds}: must be less than the limit "
                f"of {self.minutes} minutes. Use {30 * self.minutes}."
            )
        if self.chain_length > 1 and self.on_time_limit is not TimeLimitPolicy.chain:
            raise ValueError(
                f"cluster.slurm.chain_length={self.chain_length}: needs on_time_limit=chain. "
                "Use cluster.slurm.on_time_limit=chain."
            )

    def _check_environment(self) -> None:
        for setting in self.env:
            name, _, value = setting.partition("=")
            key = f"cluster.slurm.env: {name}"
            if not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{key}: must be a variable's name. Use for example NCCL_SOCKET_IFNAME=ib0."
                )
            if is_secret_name(name):
                raise ValueError(
                    f"{key}: would be written into scripts. "
                    f"Use cluster.slurm.pass_env=[{name}] and set it in your shell."
                )
            _check_line(key, value)
        for name in self.pass_env:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"cluster.slurm.pass_env={name!r}: must hold names of variables, not values. "
                    "Use for example [WANDB_API_KEY]."
                )


def _check_word(key: str, value: str) -> None:
    if not _WORD.fullmatch(value):
        raise ValueError(
            f"{key}={value!r}: must be one word without spaces, quotes, # and backslashes. "
            "Use the name as the site spells it."
        )


def _check_line(key: str, value: str) -> None:
    if not value.isprintable():
        raise ValueError(f"{key}={value!r}: must be one line of printable text. Use one line.")
