"""Schema of a cluster; values live in ``conf/cluster``."""

from dataclasses import dataclass
from enum import StrEnum


class ClusterKind(StrEnum):
    """Where jobs run."""

    local = "local"


@dataclass
class ClusterConfig:
    """Say where jobs run and how they are treated there.

    kind: see :class:`ClusterKind`.
    slots: processes that may run at once; 0 takes every core this process may use.
    threads_per_process: OpenMP, MKL and OpenBLAS threads of each process. Tiny models scale
        better over runs than over threads, hence 1.
    grace_seconds: time between SIGTERM, on which a run saves a checkpoint, and SIGKILL. Keep it
        above torchrun's own 30 s, after which the agent kills its workers.
    retries: times a failed job is started again; it resumes from its last checkpoint.
    """

    kind: ClusterKind = ClusterKind.local
    slots: int = 0
    threads_per_process: int = 1
    grace_seconds: float = 60.0
    retries: int = 1

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
