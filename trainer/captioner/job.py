"""Schema of the command that captions; torch-free, so that its keys are told quickly."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from data.config import Engine
from data.derive.recaption import Existing
from data.engine.settings import check_builders
from trainer.chat.endpoint import EndpointConfig
from trainer.config import Seed
from trainer.layout.config import DEVICES, Precision


class OnError(StrEnum):
    """What to do when clips are left without a caption.

    stop: write no data set. keep: these clips keep the captions that they had.
    """

    stop = "stop"
    keep = "keep"


@dataclass
class CaptionJob(EndpointConfig):
    """What to caption, by whom, and what becomes of old captions.

    Without ``weights`` an endpoint writes the captions.
    """

    root: Annotated[str, Doc("Data set to read.")] = ""
    out: Annotated[str, Doc("Folder of the new one.")] = ""
    weights: Annotated[str, Doc("Folder of a trained captioner; or give endpoint and model.")] = ""
    existing: Annotated[
        Existing,
        Doc(
            "short keeps short captions (a caption of at most short_words words becomes one "
            "too); drop replaces all."
        ),
    ] = Existing.short
    short_words: Annotated[int, Ge(0), Doc("Most words of a short caption.")] = 12
    on_error: Annotated[OnError, Doc("Stop, or keep the old captions of clips that got none.")] = (
        OnError.stop
    )
    temperature: Annotated[
        float,
        Ge(0),
        Doc(
            "0 takes the likeliest word; above, words are drawn by seed from the likeliest; "
            "for weights only."
        ),
    ] = 0.0
    top_p: Annotated[
        float,
        Gt(0),
        Le(1),
        Doc("Words are drawn from the likeliest that hold this share of the probability."),
    ] = 0.9
    seed: Annotated[Seed, Doc("Decides the draws.")] = 0
    batch: Annotated[int, Ge(1), Doc("Clips that the captioner reads at once.")] = 16
    device: Annotated[
        str, Doc("Where weights compute: auto (CUDA where there is one), cpu or cuda.")
    ] = "auto"
    precision: Annotated[Precision, Doc("Arithmetic of weights.")] = Precision.fp32
    decode_workers: Annotated[int, Ge(1), Doc("Decoder processes.")] = 1
    frames: Annotated[int, Ge(1), Doc("Frames of a clip that an endpoint sees.")] = 8
    side: Annotated[int, Ge(1), Doc("Their longer side in pixels.")] = 512
    engine: Annotated[Engine, Doc("Who captions: this process, or a Ray cluster.")] = Engine.local
    address: Annotated[str, Doc("The cluster of engine=ray, as HOST:PORT.")] = ""
    share: Annotated[
        str, Doc("I/N captions every N-th batch from the I-th on, and writes no data set.")
    ] = ""

    num_workers = 1  # a captioner takes all cores

    @property
    def is_shared(self) -> bool:
        """Whether other processes caption the same data set meanwhile."""
        return bool(self.share) or self.engine is not Engine.local

    def check_job(self) -> None:
        """Raise ValueError on values that cannot work together."""
        for key in ("root", "out"):
            if not getattr(self, key):
                raise ValueError(f"{key}=(missing): must name a data set. Use {key}=FOLDER.")
        if bool(self.weights) == bool(self.endpoint):
            raise ValueError(
                f"weights={self.weights}, endpoint={self.endpoint}: exactly one must be given. "
                "Use weights=FOLDER, or endpoint=URL model=NAME."
            )
        if self.device not in DEVICES:
            raise ValueError(
                f"device={self.device}: must be one of {', '.join(DEVICES)}. Use auto."
            )
        check_builders(self)
        if self.max_cost and self.is_shared:
            raise ValueError(
                f"max_cost={self.max_cost:g}: is counted by one process. Give it without engine "
                "and share."
            )
        if self.endpoint:
            self.check()
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError(
                    f"endpoint={self.endpoint}: is asked by one process, concurrency="
                    f"{self.concurrency} questions at once. Start the command without torchrun."
                )
