"""Schemas of the runs that train a video compression network and its perceptual encoder.

Torch-free; composed from ``trainer/conf/vae.yaml`` and ``trainer/conf/perceptual.yaml``.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.config import DataConfig
from models.config import PerceptualConfig, VaeConfig
from trainer.compose import compose_as, freeze_as, load_as
from trainer.config import CheckpointConfig, OptimConfig
from trainer.layout.config import ParallelConfig

VAE, PERCEPTUAL = "vae", "perceptual"


@dataclass
class VaeLossConfig:
    """Weights of the terms; the reconstruction's mean absolute error in [-1, 1] has weight 1.

    squared: of the mean squared error, which PSNR judges and L1 alone would neglect.
    motion: of the mean absolute error of changes from frame to frame, which is seen as flicker.
    kl: of the mean divergence of a latent value's posterior from a standard normal.
    perceptual: of the distance in features of the encoder at ``perceptual_path``; 0 needs none.
    perceptual_frames: frames of a clip that are compared, drawn anew each visit.
    lpips: of LPIPS with the weights in the folder ``lpips_path`` (trainer/vae/lpips.py).
    adversarial: of a patch discriminator's judgement (hinge), from ``adversarial_start`` (a share
        of the run) on.
    """

    squared: float = 3.0
    motion: float = 0.5
    kl: float = 1e-3
    perceptual: float = 0.02
    perceptual_path: str = "weights/perceptual"
    perceptual_frames: int = 4
    lpips: float = 0.0
    lpips_path: str = ""
    adversarial: float = 0.0
    adversarial_start: float = 0.5


@dataclass
class VaeValidationConfig:
    """What is measured at the end.

    splits, samples: clips a split. statistics_samples: training clips that the statistics of the
    latents are measured on.
    """

    splits: list[str] = field(default_factory=lambda: ["val_worlds", "val_real"])
    samples: int = 48
    statistics_samples: int = 512


@dataclass
class VaeRun:
    """A compression network's training.

    start: network of the same shape to start from: the folder of a codec, or of another run, whose
        newest averaged weights are taken.
    components: otherwise, training clips whose principal components the linear path starts from;
        0 starts from the wavelet's rows.
    steps: optimizer steps; a step is ``data.pack_tokens`` x ``data.packs_per_step`` cells, each of
        a latent value's stride times 1x2x2.
    """

    name: str = "vae"
    seed: int = 0
    vae: VaeConfig = field(default_factory=VaeConfig)
    loss: VaeLossConfig = field(default_factory=VaeLossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: VaeValidationConfig = field(default_factory=VaeValidationConfig)
    start: str = ""
    components: int = 256
    steps: int = 1000

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 20
    run_root: str = "runs"

    @property
    def cell(self) -> tuple[int, int, int]:
        """Source pixels of a planner's token: the stride times the transformer's patch."""
        frames, height, width = self.vae.stride
        return frames, 2 * height, 2 * width

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        self.vae.check()
        loss = self.loss
        weights = {
            "squared": loss.squared,
            "motion": loss.motion,
            "kl": loss.kl,
            "perceptual": loss.perceptual,
            "lpips": loss.lpips,
            "adversarial": loss.adversarial,
        }
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"loss.{name}={weight}: must be at least 0. Use 0 for none.")
        if loss.perceptual_frames < 1:
            raise ValueError(
                f"loss.perceptual_frames={loss.perceptual_frames}: must be at least 1. Use 4."
            )
        if not 0 <= loss.adversarial_start < 1:
            raise ValueError(
                f"loss.adversarial_start={loss.adversarial_start}: must lie in [0, 1). Use 0.5."
            )
        if loss.lpips and not loss.lpips_path:
            raise ValueError("loss.lpips_path=: LPIPS needs a folder of weights. See docs/vae.md.")
        _check_training(self.steps, self.optim, self.seed)
        _check_layout(self.parallel, self.data.packs_per_step)

    def identity(self) -> dict[str, Any]:
        """Return what defines the training, whatever machine carries it out."""
        names = ("vae", "loss", "optim", "validation", "start", "components", "steps", "seed")
        return _identity(self, names)


@dataclass
class PerceptualRun:
    """The training of the perceptual encoder on what simulators know of their frames.

    frames: frames of a clip that are looked at, drawn anew each visit.
    min_share: labels that fewer frames carry are left out; labels: at most so many.
    """

    name: str = "perceptual"
    seed: int = 0
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: int = 500
    frames: int = 3
    labels: int = 128
    min_share: float = 0.005
    val_split: str = "val_worlds"
    val_samples: int = 128

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 20
    run_root: str = "runs"

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        _check_training(self.steps, self.optim, self.seed)
        _check_layout(self.parallel, self.data.packs_per_step)

    def identity(self) -> dict[str, Any]:
        """Return what defines the training, whatever machine carries it out."""
        names = ("perceptual", "optim", "steps", "seed", "frames", "labels", "min_share")
        return _identity(self, names)


def compose_vae(overrides: list[str]) -> VaeRun:
    """Compose a network's training; raise ValueError with the remedy."""
    run = compose_as(VaeRun, VAE, overrides)
    run.check()
    return run


def compose_perceptual(overrides: list[str]) -> PerceptualRun:
    """Compose an encoder's training; raise ValueError with the remedy."""
    run = compose_as(PerceptualRun, PERCEPTUAL, overrides)
    run.check()
    return run


def freeze(run: VaeRun | PerceptualRun) -> Path:
    """Write ``config.yaml`` into the run's folder, or check what it holds; return the folder."""
    digest = hashlib.sha256(json.dumps(run.identity(), sort_keys=True).encode()).hexdigest()
    folder = Path(run.run_root) / f"{run.name}-{digest[:10]}"
    found = load_as(type(run), folder) if (folder / "config.yaml").exists() else run
    if found.identity() != run.identity():
        raise ValueError(f"run={folder}: holds another experiment. Choose another name.")
    freeze_as(run, folder)
    return folder


def load_vae_run(folder: Path) -> VaeRun:
    """Load the frozen config of a network's training."""
    run = load_as(VaeRun, folder)
    run.check()
    return run


def _identity(run: VaeRun | PerceptualRun, names: tuple[str, ...]) -> dict[str, Any]:
    config = asdict(run)
    chosen = {name: config[name] for name in names}
    planning = ("train_split", "mixture", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: config["data"][key] for key in planning}
    chosen["data"]["name"] = "/".join(Path(run.data.root).parts[-2:])
    return chosen


def _check_training(steps: int, optim: OptimConfig, seed: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: must be at least 1. Use 1000.")
    if optim.lr <= 0:
        raise ValueError(f"optim.lr={optim.lr}: must be positive. Use 2e-3.")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be at least 0. Use 0.")


def _check_layout(parallel: ParallelConfig, packs_per_step: int) -> None:
    layout = parallel.layout
    if layout.dp != parallel.processes:
        raise ValueError(
            f"parallel.tp,cp,pp={layout.tp},{layout.cp},{layout.pp}: a small network is trained "
            "data-parallel only. Leave them at 1."
        )
    if packs_per_step % parallel.processes:
        raise ValueError(
            f"data.packs_per_step={packs_per_step}: must be divisible by parallel.processes="
            f"{parallel.processes}. Use {parallel.processes}."
        )
