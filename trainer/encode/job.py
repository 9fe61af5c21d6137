"""Schema of the command that encodes; torch-free, so that its keys are told quickly."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from data.config import Engine


@dataclass
class EncodeJob:
    """Where latents go, and who makes them; all other keys are those of a run."""

    out: Annotated[str, Doc("Folder of the latents.")] = ""
    captions: Annotated[
        str,
        Doc(
            "A table of captions and scores by key (csv, jsonl, parquet, ...), or a folder that "
            "kinescale caption has written, which go before those of the data set."
        ),
    ] = ""
    engine: Annotated[Engine, Doc("Who encodes: this process, or a Ray cluster.")] = Engine.local
    address: Annotated[str, Doc("The cluster of engine=ray, as HOST:PORT.")] = ""
    share: Annotated[str, Doc("I/N encodes every N-th part from the I-th on, and no index.")] = ""
    num_workers: Annotated[int, Ge(0), Doc("Threads that encode; 0 takes one a core.")] = 0
