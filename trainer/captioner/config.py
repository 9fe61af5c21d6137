"""Schema of a captioner's training run; torch-free."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.config import DataConfig
from models.config import CaptionerConfig
from trainer.config import CheckpointConfig, OptimConfig

NAME = "captioner"  # of trainer/conf/captioner.yaml


@dataclass
class WordsConfig:
    """Which words the captioner knows; what it does not know it spells.

    most: at most so many words. min_count: seen so often in the training captions.
    """

    most: int = 4000
    min_count: int = 3


@dataclass
class CaptionerRun:
    """Everything that defines a captioner's training and how it is carried out.

    short_share: share of the visits that train the short caption, where a clip has one.
    mirror: show half of the visits mirrored, with left and right swapped in the caption; only for
        clips without writing in them.
    hints, hint_weight: so many words and pairs of words of captions are also guessed from the clip
        at once (trainer/captioner/train.py), and the weight of that loss.
    steps: optimizer steps; a step is ``data.pack_tokens`` x ``data.packs_per_step`` video tokens.
    validation_split, validation_samples: where confidence is calibrated after training.
    """

    name: str = "captioner"
    seed: int = 0
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    words: WordsConfig = field(default_factory=WordsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = 1000
    short_share: float = 0.1
    mirror: bool = False
    hints: int = 1500
    hint_weight: float = 4.0
    validation_split: str = "val_worlds"
    validation_samples: int = 128

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 20
    run_root: str = "runs"

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        self.captioner.check()
        rules: list[tuple[str, object, bool, str, str]] = [
            ("seed", self.seed, self.seed >= 0, "be at least 0", "0"),
            ("steps", self.steps, self.steps > 0, "be at least 1", "1000"),
            ("hints", self.hints, self.hints > 0, "be at least 1", "1500"),
            ("hint_weight", self.hint_weight, self.hint_weight >= 0, "be at least 0", "4"),
            ("short_share", self.short_share, 0 <= self.short_share <= 1, "lie in [0, 1]", "0.1"),
            ("optim.lr", self.optim.lr, self.optim.lr > 0, "be positive", "2e-3"),
            ("log_every", self.log_every, self.log_every > 0, "be at least 1", "20"),
            ("words.most", self.words.most, self.words.most >= 0, "be at least 0", "4000"),
            (
                "validation_samples",
                self.validation_samples,
                self.validation_samples > 0,
                "be at least 1",
                "128",
            ),
        ]
        for key, value, holds, rule, remedy in rules:
            if not holds:
                raise ValueError(f"{key}={value}: must {rule}. Use {remedy}.")
        if self.captioner.feature_channels:
            raise ValueError(
                f"captioner.feature_channels={self.captioner.feature_channels}: this command "
                "trains on pixels; features are for callers that hand them in. Use 0."
            )


def identity(run: CaptionerRun) -> dict[str, Any]:
    """Return what defines the experiment, whatever machine carries it out."""
    config = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert isinstance(config, dict)
    chosen: dict[str, Any] = {str(key): value for key, value in config.items()}
    for key in ("checkpoint", "log_every", "run_root"):
        del chosen[key]
    planning = ("train_split", "mixture", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: chosen["data"][key] for key in planning}
    chosen["data"]["name"] = "/".join(Path(run.data.root).parts[-2:])
    return chosen


def run_name(run: CaptionerRun) -> str:
    """Return the folder name: a readable prefix and the hash of the experiment; never parsed."""
    text = json.dumps(identity(run), sort_keys=True)
    return f"{run.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
