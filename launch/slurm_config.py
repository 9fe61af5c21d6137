"""Schema of a SLURM site and of how jobs are treated there; values live in ``conf/cluster``."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from data.secrets import is_secret_name
from launch.container_config import ContainerConfig
from launch.sbatch_words import (
    OWN_OF_SBATCH,
    OWN_OF_SRUN,
    check_line,
    check_option,
    check_variable,
    check_word,
    parse_gpus,
    refuse_mixture,
)

Count = Annotated[int, Ge(1)]
GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")


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


class GpuOption(StrEnum):
    """Which option of sbatch asks for GPUs; gres is known where select/cons_tres is not used."""

    gpus_per_node = "gpus_per_node"
    gres = "gres"


@dataclass
class SlurmConfig:
    """How jobs are described to SLURM and carried through failures."""

    partition: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    account: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    qos: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    constraint: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    reservation: Annotated[str, Doc("As sbatch takes it; empty leaves it out.")] = ""
    exclude: Annotated[list[str], Doc("Nodes not to use.")] = field(default_factory=list)
    options: Annotated[list[str], Doc('Further sbatch options, as ["gres=nvme:1", exclusive].')] = (
        field(default_factory=list)
    )
    srun_options: Annotated[
        list[str], Doc('Further options of the srun that starts the ranks, as ["mpi=pmix"].')
    ] = field(default_factory=list)
    comment: Annotated[str, Doc("A line that accounting keeps with each job.")] = ""
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
    gpus: Annotated[
        str,
        Doc(
            "Type and number of a node's GPUs, as h100:8, in the place of gpus_per_node; "
            "one type in a run."
        ),
    ] = ""
    gpu_option: Annotated[
        GpuOption,
        Doc("How sbatch is asked for them; gres where the site does not know gpus-per-node."),
    ] = GpuOption.gpus_per_node
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
        int,
        Ge(0),
        Doc(
            "Most runs of one array; longer studies become several. 0 takes what the controller "
            "says (MaxArraySize, max_array_tasks)."
        ),
    ] = 0
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
    prologue: Annotated[
        str,
        Doc("A shell file of the site that every job sources first; a line that fails ends it."),
    ] = ""
    module_paths: Annotated[
        list[str], Doc("Folders with modules, for module use, before modules are loaded.")
    ] = field(default_factory=list)
    modules: Annotated[list[str], Doc("Modules that every job loads, after the prologue.")] = field(
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

    @property
    def num_gpus(self) -> int:
        """GPUs of a node, 0 for none."""
        return parse_gpus("cluster.slurm.gpus", self.gpus)[1] if self.gpus else self.gpus_per_node

    @property
    def gpu_type(self) -> str:
        """Their type as the site spells it, '' for any."""
        return parse_gpus("cluster.slurm.gpus", self.gpus)[0] if self.gpus else ""

    def check(self) -> None:
        """Raise ValueError on what SLURM would misread, or what must not be written."""
        for key in ("partition", "account", "qos", "constraint", "reservation"):
            check_word(f"cluster.slurm.{key}", getattr(self, key))
        for node in self.exclude:
            check_word("cluster.slurm.exclude", node)
        self._check_options()
        self._check_numbers()
        self._check_environment()
        for key in ("prologue", "python", "comment"):
            check_line(f"cluster.slurm.{key}", getattr(self, key))
        for key in ("modules", "module_paths"):
            for text in getattr(self, key):
                check_line(f"cluster.slurm.{key}", text)
        self.container.check()

    def _check_options(self) -> None:
        for option in self.options:
            name, _, value = option.partition("=")
            key = f"cluster.slurm.options={option!r}"
            check_option(key, option, "sbatch", OWN_OF_SBATCH)
            check_word(key, value)
            if name in GPU_OPTIONS:
                refuse_mixture(key, value)
                if self.num_gpus and ("gpu" in value or name != "gres"):
                    raise ValueError(
                        f"{key}: asks for GPUs that cluster.slurm.gpus asks for too. Use one."
                    )
        for option in self.srun_options:
            key = f"cluster.slurm.srun_options={option!r}"
            check_option(key, option, "srun", OWN_OF_SRUN)
            check_line(key, option)

    def _check_numbers(self) -> None:
        if self.gpus:
            parse_gpus("cluster.slurm.gpus", self.gpus)
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
            check_variable(key, name, "NCCL_SOCKET_IFNAME=ib0")
            if is_secret_name(name):
                raise ValueError(
                    f"{key}: would be written into scripts. "
                    f"Use cluster.slurm.pass_env=[{name}] and set it in your shell."
                )
            check_line(key, value)
        for name in self.pass_env:
            if not name.isidentifier() or not name.isascii():
                raise ValueError(
                    f"cluster.slurm.pass_env={name!r}: must hold names of variables, not values. "
                    "Use for example [WANDB_API_KEY]."
                )
