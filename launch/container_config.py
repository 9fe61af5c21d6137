"""Schema of the container that ranks run in; the supervisor of a run stays outside of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from typing_extensions import Doc

from launch.sbatch_words import check_line, check_variable


class ContainerKind(StrEnum):
    """What makes the container: a plugin of srun, or a program that srun starts."""

    pyxis = "pyxis"
    apptainer = "apptainer"


@dataclass
class ContainerConfig:
    """A container for the ranks; no image, no container."""

    image: Annotated[
        str,
        Doc(
            "As enroot takes it, such as nvcr.io#nvidia/pytorch:25.10-py3 or a .sqsh file, or as "
            "apptainer does, such as a .sif file; empty for no container."
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
    kind: Annotated[ContainerKind, Doc("What makes it: pyxis with enroot, or apptainer.")] = (
        ContainerKind.pyxis
    )
    env: Annotated[
        list[str],
        Doc(
            "Names of further variables of the job that go before the image's own; those that the "
            "launcher sets, cluster.slurm.env and pass_env are among them without being named."
        ),
    ] = field(default_factory=list)

    def check(self) -> None:
        """Raise ValueError on what the container would misread."""
        for key, text in (
            ("image", self.image),
            ("workdir", self.workdir),
            ("python", self.python),
        ):
            check_line(f"cluster.slurm.container.{key}", text)
        for mount in self.mounts:
            key = f"cluster.slurm.container.mounts={mount!r}"
            check_line("cluster.slurm.container.mounts", mount)
            if "," in mount:  # both programs take them as one list
                raise ValueError(f"{key}: must hold no comma. Use a link of another name.")
            if not 2 <= len(mount.split(":")) <= 3 or not all(mount.split(":")):
                raise ValueError(f"{key}: must be HOST:CONTAINER[:ro]. Use /data:/data:ro.")
        for name in self.env:
            check_variable(f"cluster.slurm.container.env={name!r}", name, "[NCCL_DEBUG]")
