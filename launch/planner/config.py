"""Schema of a plan's questions; the run and the machine have schemas of their own."""

from dataclasses import dataclass

from trainer.layout.config import Precision


@dataclass
class PlanConfig:
    """What a plan assumes where nothing is measured.

    clip_tokens: of a typical clip, and caption_tokens of its caption, where the dataset's index is
        not at hand (0: 8,192, or a pack where that is smaller and given).
    fill: share of a pack's rows that are tokens, likewise.
    goodput: share of wall time that trains; the rest starts, saves, waits and repeats.
    online: clips are encoded and captions embedded while training, and not read as latents.
    disk_bytes: what the runs may use; 0 takes what is free under ``run_root``.
    disk_bytes_per_second: what all ranks together write.
    max_days: longest a run may take before the plan warns.
    """

    clip_tokens: int = 0
    caption_tokens: int = 64
    fill: float = 0.98
    goodput: float = 0.98
    online: bool = False
    disk_bytes: float = 0.0
    disk_bytes_per_second: float = 5e9
    max_days: float = 60.0

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        for key in ("fill", "goodput"):
            value = getattr(self, key)
            if not 0 < value <= 1:
                raise ValueError(f"plan.{key}={value:g}: must be a share in (0, 1]. Use 0.98.")
        for key in ("clip_tokens", "caption_tokens", "disk_bytes"):
            if getattr(self, key) < 0:
                raise ValueError(f"plan.{key}={getattr(self, key):g}: must not be negative. Use 0.")
        for key in ("max_days", "disk_bytes_per_second"):
            if getattr(self, key) <= 0:
                raise ValueError(f"plan.{key}={getattr(self, key):g}: must be positive. Use 60.")


@dataclass
class SearchConfig:
    """Which layouts to look at.

    gpus: devices, required. batch_tokens: of an optimizer step (0: the run's, or 16,384 a device
    where the run's gives less than 1,024 to each). top: layouts to return. precision: of the
    layouts. max_tp: widest tensor parallelism (0: a node). offload: also look at offloading.
    """

    gpus: int = 0
    batch_tokens: float = 0.0
    top: int = 5
    precision: Precision = Precision.bf16
    max_tp: int = 0
    offload: bool = False

    def check(self) -> None:
        """Raise ValueError on values that cannot be."""
        if self.gpus < 1:
            raise ValueError(f"search.gpus={self.gpus}: must be at least 1. Use gpus=1024.")
        if self.top < 1:
            raise ValueError(f"search.top={self.top}: must be at least 1. Use 5.")
        if self.batch_tokens < 0 or self.max_tp < 0:
            raise ValueError("search.batch_tokens and max_tp: must not be negative. Use 0.")
