"""Schemas of the runs that train a video compression network and its perceptual encoder.

Torch-free; composed from ``trainer/conf/vae.yaml`` and ``trainer/conf/perceptual.yaml``.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt
from typing_extensions import Doc

from data.config import DataConfig
from models.config import PerceptualConfig, VaeConfig
from trainer.compose import compose_as, load_as
from trainer.config import CheckpointConfig, RunKind, Seed, Share
from trainer.layout.config import ParallelConfig
from trainer.optim_config import AdamConfig

VAE, PERCEPTUAL = "vae", "perceptual"
Count = Annotated[int, Ge(1)]
Weight = Annotated[float, Ge(0)]


@dataclass
class VaeLossConfig:
    """Weights of the terms; the reconstruction's mean absolute error in [-1, 1] has weight 1."""

    squared: Annotated[
        Weight,
        Doc("Weight of the mean squared error, which PSNR judges and L1 alone would neglect."),
    ] = 3.0
    motion: Annotated[
        Weight,
        Doc("Weight of the mean absolute error of changes from frame to frame, seen as flicker."),
    ] = 0.5
    kl: Annotated[
        Weight,
        Doc("Weight of the mean divergence of a latent value's posterior from a standard normal."),
    ] = 1e-3
    perceptual: Annotated[
        Weight,
        Doc("Weight of the distance in features of the encoder at perceptual_path; 0 needs none."),
    ] = 0.02
    perceptual_path: Annotated[str, Doc("Folder of the perceptual encoder.")] = "weights/perceptual"
    perceptual_frames: Annotated[
        Count, Doc("Frames of a clip that are compared, drawn anew each visit.")
    ] = 4
    lpips: Annotated[Weight, Doc("Weight of LPIPS; 0 needs no weights of it.")] = 0.0
    lpips_path: Annotated[str, Doc("Folder of LPIPS's weights (trainer/vae/lpips.py).")] = ""
    adversarial: Annotated[
        Weight, Doc("Weight of a patch discriminator's judgement (hinge); 0 trains none.")
    ] = 0.0
    adversarial_start: Annotated[
        float, Ge(0), Lt(1), Doc("Share of the run after which the discriminator counts.")
    ] = 0.5


@dataclass
class VaeValidationConfig:
    """What is measured at the end."""

    splits: Annotated[list[str], Doc("Splits to measure.")] = field(
        default_factory=lambda: ["val_worlds", "val_real"]
    )
    samples: Annotated[int, Ge(0), Doc("Clips a split; 0 takes all.")] = 48
    statistics_samples: Annotated[
        int,
        Ge(0),
        Doc("Training clips that the statistics of the latents are measured on; 0 takes all."),
    ] = 512


@dataclass
class VaeRun:
    """A compression network's training."""

    kind: Annotated[RunKind, Doc("What is trained. An experiment's file says it.")] = RunKind.codec
    name: Annotated[str, Doc("First part of the run folder's name.")] = "vae"
    seed: Annotated[Seed, Doc("Decides initial weights, the order of samples and all draws.")] = 0
    vae: VaeConfig = field(default_factory=VaeConfig)
    loss: VaeLossConfig = field(default_factory=VaeLossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: AdamConfig = field(default_factory=AdamConfig)
    validation: VaeValidationConfig = field(default_factory=VaeValidationConfig)
    start: Annotated[
        str,
        Doc(
            "Network of the same shape to start from: the folder of a codec, or of another "
            "run, whose newest averaged weights are taken; empty starts from components."
        ),
    ] = ""
    components: Annotated[
        int,
        Ge(0),
        Doc(
            "Training clips whose principal components the linear path starts from; 0 "
            "starts from the wavelet's rows."
        ),
    ] = 256
    steps: Annotated[
        Count,
        Doc(
            "Optimizer steps, each of data.pack_tokens x data.packs_per_step cells of a "
            "latent value's stride times 1x2x2."
        ),
    ] = 1000

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: Annotated[Count, Doc("Steps between two rows of metrics.")] = 20
    run_root: Annotated[str, Doc("Folder of the run folders.")] = "runs"

    @property
    def cell(self) -> tuple[int, int, int]:
        """Source pixels of a planner's token: the stride times the transformer's patch."""
        frames, height, width = self.vae.stride
        return frames, 2 * height, 2 * width

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        self.vae.check()
        loss = self.loss
        if loss.lpips and not loss.lpips_path:
            raise ValueError("loss.lpips_path=: LPIPS needs a folder of weights. See docs/vae.md.")
        _check_layout(self.parallel, self.data.packs_per_step)

    def identity(self) -> dict[str, Any]:
        """Return what defines the training, whatever machine carries it out."""
        names = ("vae", "loss", "optim", "validation", "start", "components", "steps", "seed")
        return _identity(self, names)


@dataclass
class PerceptualRun:
    """The training of the perceptual encoder on what simulators know of their frames."""

    kind: Annotated[RunKind, Doc("What is trained. An experiment's file says it.")] = (
        RunKind.perceptual
    )
    name: Annotated[str, Doc("First part of the run folder's name.")] = "perceptual"
    seed: Annotated[Seed, Doc("Decides initial weights, the order of samples and all draws.")] = 0
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: AdamConfig = field(default_factory=AdamConfig)
    steps: Annotated[Count, Doc("Optimizer steps.")] = 500
    frames: Annotated[Count, Doc("Frames of a clip that are looked at, drawn anew each visit.")] = 3
    labels: Annotated[Count, Doc("Most labels to learn.")] = 128
    min_share: Annotated[
        Share, Doc("Labels that a smaller share of the frames carries are left out.")
    ] = 0.005
    val_split: Annotated[str, Doc("Split that is measured at the end.")] = "val_worlds"
    val_samples: Annotated[int, Ge(0), Doc("Clips of that split; 0 takes all.")] = 128

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: Annotated[Count, Doc("Steps between two rows of metrics.")] = 20
    run_root: Annotated[str, Doc("Folder of the run folders.")] = "runs"

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
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


def load_vae_run(folder: Path) -> VaeRun:
    """Load the frozen config of a network's training."""
    run = load_as(VaeRun, folder)
    run.check()
    return run


def load_perceptual_run(folder: Path) -> PerceptualRun:
    """Load the frozen config of an encoder's training."""
    run = load_as(PerceptualRun, folder)
    run.check()
    return run


def _identity(run: VaeRun | PerceptualRun, names: tuple[str, ...]) -> dict[str, Any]:
    config = asdict(run)
    chosen = {name: config[name] for name in names}
    planning = ("train_split", "mixture", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: config["data"][key] for key in planning}
    chosen["data"]["name"] = "/".join(Path(run.data.root).parts[-2:])
    return chosen


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
