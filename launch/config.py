"""Schema of a cluster, and the one place that composes it; values live in ``conf/cluster``."""

import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt
from typing_extensions import Doc

from data.bounds import check_bounds
from data.secrets import refuse_secrets, texts_in
from launch.slurm_config import SlurmConfig

CONF_DIR = Path(__file__).parent / "conf"


class ClusterKind(StrEnum):
    """Where jobs run."""

    local = "local"
    slurm = "slurm"


@dataclass
class ClusterConfig:
    """Say where jobs run and how they are treated there."""

    kind: Annotated[ClusterKind, Doc("Where jobs run.")] = ClusterKind.local
    slots: Annotated[
        int,
        Ge(0),
        Doc("Processes that may run at once on this machine; 0 takes every core it may use."),
    ] = 0
    threads_per_process: Annotated[
        int,
        Ge(1),
        Doc(
            "OpenMP, MKL and OpenBLAS threads of each process; tiny models scale better "
            "over runs than over threads."
        ),
    ] = 1
    grace_seconds: Annotated[
        float,
        Ge(0),
        Doc(
            "Time between SIGTERM, on which a run saves a checkpoint, and SIGKILL; keep it "
            "above torchrun's own 30 s, after which the agent kills its workers."
        ),
    ] = 60.0
    retries: Annotated[
        int,
        Ge(0),
        Doc(
            "Times a failed job is started again, from its last checkpoint; on SLURM a run "
            "that has saved a new checkpoint since has all of them again."
        ),
    ] = 1
    poll_seconds: Annotated[float, Gt(0), Doc("How often a queue is asked.")] = 0.5
    price_per_hour: Annotated[
        float,
        Ge(0),
        Doc("Price of one process (its GPU, or its core), in any currency; 0 shows no cost."),
    ] = 0.0
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        check_bounds(self, "cluster.")
        self.slurm.check()


def compose_cluster(overrides: list[str]) -> ClusterConfig:
    """Compose ``cluster=NAME cluster.key=value ...``; raise ValueError with the remedy.

    Without ``cluster=NAME`` it is this machine.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from trainer.compose import compose_values, explain, refuse_unknown

    schema = OmegaConf.create({"cluster": OmegaConf.structured(ClusterConfig)})
    ConfigStore.instance().store(name="cluster_schema", node=schema)
    try:
        config = compose_values(CONF_DIR, "cluster", overrides)
        refuse_unknown(config, schema)
        found = OmegaConf.to_object(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, schema)) from error
    assert isinstance(found, dict)
    cluster = found["cluster"]
    assert isinstance(cluster, ClusterConfig)
    refuse_secrets(texts_in(asdict(cluster), "cluster"), os.environ)
    return cluster


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words about the cluster, and the others."""
    about = [w for w in words if w.lstrip("+~").split("=")[0].split(".")[0] == "cluster"]
    return about, [w for w in words if w not in about]
