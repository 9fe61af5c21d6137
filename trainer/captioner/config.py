"""Schema of a captioner's training run; torch-free."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from omegaconf import OmegaConf
from typing_extensions import Doc

from data.config import DataConfig
from models.config import CaptionerConfig
from trainer.compose import compose_as, load_as
from trainer.config import CheckpointConfig, RunKind, Seed, Share
from trainer.optim_config import AdamConfig

Count = Annotated[int, Ge(1)]
NAME = "captioner"  # of trainer/conf/captioner.yaml


@dataclass
class WordsConfig:
    """Which words the captioner knows; what it does not know it spells."""

    most: Annotated[int, Ge(0), Doc("Most words to know.")] = 4000
    min_count: Annotated[
        Count, Doc("Words seen less often in the training captions are spelt.")
    ] = 3


@dataclass
class CaptionerRun:
    """Everything that defines a captioner's training and how it is carried out."""

    kind: Annotated[RunKind, Doc("What is trained. An experiment's file says it.")] = (
        RunKind.captioner
    )
    name: Annotated[str, Doc("First part of the run folder's name.")] = "captioner"
    seed: Annotated[Seed, Doc("Decides initial weights, the order of samples and all draws.")] = 0
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    words: WordsConfig = field(default_factory=WordsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: AdamConfig = field(default_factory=AdamConfig)
    steps: Annotated[
        Count, Doc("Optimizer steps, each of data.pack_tokens x data.packs_per_step video tokens.")
    ] = 1000
    short_share: Annotated[
        Share, Doc("Share of the visits that train the short caption, where a clip has one.")
    ] = 0.1
    mirror: Annotated[
        bool,
        Doc(
            "Show half of the visits mirrored, with left and right swapped in the caption; "
            "only for clips without writing in them."
        ),
    ] = False
    hints: Annotated[
        Count,
        Doc(
            "Words and pairs of words of captions that are also guessed from the clip at "
            "once (trainer/captioner/train.py)."
        ),
    ] = 1500
    hint_weight: Annotated[float, Ge(0), Doc("Weight of the loss of those guesses.")] = 4.0
    validation_split: Annotated[
        str, Doc("Split on which confidence is calibrated after training.")
    ] = "val_worlds"
    validation_samples: Annotated[Count, Doc("Clips of that split.")] = 128

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: Annotated[Count, Doc("Steps between two rows of metrics.")] = 20
    run_root: Annotated[str, Doc("Folder of the run folders.")] = "runs"

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        self.captioner.check()
        if self.captioner.feature_channels:
            raise ValueError(
                f"captioner.feature_channels={self.captioner.feature_channels}: this command "
                "trains on pixels; features are for callers that hand them in. Use 0."
            )


def captioner_identity(run: CaptionerRun) -> dict[str, Any]:
    """Return what defines the experiment, whatever machine carries it out."""
    config = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert isinstance(config, dict)
    chosen: dict[str, Any] = {str(key): value for key, value in config.items()}
    for key in ("kind", "checkpoint", "log_every", "run_root"):
        del chosen[key]
    planning = ("train_split", "mixture", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: chosen["data"][key] for key in planning}
    chosen["data"]["name"] = "/".join(Path(run.data.root).parts[-2:])
    return chosen


def compose_captioner(overrides: list[str]) -> CaptionerRun:
    """Compose a captioner's run from Hydra overrides; raise ValueError with the remedy."""
    run = compose_as(CaptionerRun, NAME, overrides)
    run.check()
    return run


def load_captioner_run(folder: Path) -> CaptionerRun:
    """Load the frozen config of a captioner's training."""
    run = load_as(CaptionerRun, folder)
    run.check()
    return run
