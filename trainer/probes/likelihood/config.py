"""What a likelihood probe is told."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, MinLen
from typing_extensions import Doc

from trainer.config import Seed
from trainer.probes.couples import check_asked

FILE = "probes.json"  # in the folder of the run that was asked


class Look(StrEnum):
    """How a pair is looked at.

    joint: a whole clip stands at one time. given: the frames before the splice stand clean.
    """

    joint = "joint"
    given = "given"


@dataclass
class LikelihoodConfig:
    """What to ask; see the module's help."""

    run: Annotated[str, Doc("Folder of the run.")] = ""
    twin: Annotated[
        str, Doc("Folder of the same run on lawless clips; empty: nothing can be claimed.")
    ] = ""
    worlds: Annotated[
        list[str],
        Doc("Tiny worlds; empty asks about all that the run saw. rooms and physics by name alone."),
    ] = field(default_factory=list)
    properties: Annotated[
        list[str], Doc("What pairs differ in; empty asks about all properties of each world.")
    ] = field(default_factory=list)
    looks: Annotated[
        list[Look], MinLen(1), Doc("Ways in which every pair is looked at, each a column.")
    ] = field(default_factory=lambda: [Look.joint, Look.given])
    pairs: Annotated[int, Ge(8), Doc("Crossed pairs of each property.")] = 128
    seed: Annotated[Seed, Doc("Decides pairs, noise, and the lawful clips.")] = 0
    clips: Annotated[
        int, Ge(64), Doc("Lawful clips from which means and covariances are estimated.")
    ] = 2048
    out: Annotated[str, Doc("JSON file to write; empty is RUN/probes.json.")] = ""
    couples: Annotated[
        str,
        Doc("JSON list of {run, twin, out} to ask in turn; those whose out is there are kept."),
    ] = ""

    def check(self) -> None:
        """Raise ValueError on values that are missing."""
        check_asked(self)
