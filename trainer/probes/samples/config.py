"""What a probe of samples is told."""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from trainer.config import Seed
from trainer.probes.couples import check_asked

FILE = "samples.json"  # in the folder of the run that drew


@dataclass
class SamplesConfig:
    """What to draw; see the module's help."""

    run: Annotated[str, Doc("Folder of the run.")] = ""
    twin: Annotated[str, Doc("Folder of the same run on lawless clips; empty: none.")] = ""
    worlds: Annotated[list[str], Doc("Tiny worlds; empty asks about all that the run saw.")] = (
        field(default_factory=list)
    )
    clips: Annotated[int, Ge(8), Doc("Clips of each world that are gone on from.")] = 64
    seed: Annotated[Seed, Doc("Decides clips and noise.")] = 0
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 24
    shown: Annotated[
        int,
        Ge(0),
        Le(16),
        Doc("Clips of each world that are kept as pictures, and drawn with nothing given, too."),
    ] = 0
    out: Annotated[str, Doc("JSON file to write; empty is RUN/samples.json.")] = ""
    couples: Annotated[
        str,
        Doc("JSON list of {run, twin, out} to ask in turn; those whose out is there are kept."),
    ] = ""

    def check(self) -> None:
        """Raise ValueError on values that are missing."""
        check_asked(self)
