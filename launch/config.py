"""Schema of a cluster, and the one place that composes it; values live in ``conf/cluster``."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from launch.slurm_config import SlurmConfig

CONF_DIR = Path(__file__).parent / "conf"


class ClusterKind(StrEnum):
    """Where jobs run."""

    local = "local"
    slurm = "slurm"


@dataclass
class ClusterConfig:
    """Say where jobs run and how they are treated there.

    kind: see :class:`ClusterKind`.
    slots: processes that may run at once on this machine; 0 takes every core it may use.
    threads_per_process: OpenMP, MKL and OpenBLAS threads of each process. Tiny models scale
        better over runs than over threads, hence 1.
    grace_seconds: time between SIGTERM, on which a run saves a checkpoint, and SIGKILL. Keep it
        above torchrun's own 30 s, after which the agent kills its workers.
    retries: times a failed job is started again; it resumes from its last checkpoint. On SLURM a
        run that has saved a new checkpoint since has all of them again.
    poll_seconds: how often a queue is asked.
    price_per_hour: of one process (its GPU, or its core), in any currency; 0 shows no cost.
    slurm: for ``kind=slurm``, see :class:`launch.slurm_config.SlurmConfig`.
    """

    kind: ClusterKind = ClusterKind.local
    slots: int = 0
    threads_per_process: int = 1
    grace_seconds: float = 60.0
    retries: int = 1
    poll_seconds: float = 0.5
    price_per_hour: float = 0.0
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        if self.slots < 0:
            raise ValueError(f"cluster.slots={self.slots}: must be 0 or more. 0 takes all cores.")
        if self.threads_per_process < 1:
            raise ValueError(
                f"cluster.threads_per_process={self.threads_per_process}: must be 1 or more. Use 1."
            )
        if self.grace_seconds < 0:
            raise ValueError(
                f"cluster.grace_seconds={self.grace_seconds}: must be 0 or more. Use 60."
            )
        if self.retries < 0:
            raise ValueError(
                f"cluster.retries={self.retries}: must be 0 or more. 0 gives one attempt."
            )
        if self.poll_seconds <= 0:
            raise ValueError(f"cluster.poll_seconds={self.poll_seconds}: must be positive. Use 1.")
        if self.price_per_hour < 0:
            raise ValueError(
                f"cluster.price_per_hour={self.price_per_hour}: must be 0 or more. 0 shows none."
            )
        self.slurm.check()


def compose_cluster(overrides: list[str]) -> ClusterConfig:
    """Compose ``cluster=NAME cluster.key=value ...``; raise ValueError with the remedy.

    Without ``cluster=NAME`` it is this machine.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from trainer.compose import explain, refuse_unknown

    schema = OmegaConf.create({"cluster": OmegaConf.structured(ClusterConfig)})
    ConfigStore.instance().store(name="cluster_schema", node=schema)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.resolve())):
        try:
            config = compose(config_name="cluster", overrides=overrides)
            refuse_unknown(config, schema)
            found = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, schema)) from error
    assert isinstance(found, dict)
    cluster = found["cluster"]
    assert isinstance(cluster, ClusterConfig)
    return cluster


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words about the cluster, and the others."""
    about = [w for w in words if w.lstrip("+~").split("=")[0].split(".")[0] == "cluster"]
    return about, [w for w in words if w not in about]
