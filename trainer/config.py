"""Schema of a diffusion transformer's run, and of what other kinds of run share; torch-free.

A run is composed once by Hydra, frozen to ``RUN/config.yaml``, and only loaded from there by ranks.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, MinLen
from typing_extensions import Doc

from data.bounds import check_bounds
from data.config import DataConfig
from data.dataset.shards import read_manifest
from models.architecture import check_model
from models.config import CodecConfig, CodecKind, Finite, ModelConfig, TextConfig
from models.objective import Prediction, Weighting, check_objective
from models.tasks import beside_text, check_tasks
from models.times import TimePart, needs_spread, root_mean_square
from trainer.codec.files import fill
from trainer.compose import check_name, compose_as, load_as
from trainer.layout.config import ParallelConfig
from trainer.layout.optimizer import check_optimizer
from trainer.log_config import LogConfig
from trainer.optim_config import OptimConfig, Share

# Of a parameter in a checkpoint: weight, two moments and average, in fp32 whatever the arithmetic.
STATE_BYTES = 4 * 4
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what every generator takes


class RunKind(StrEnum):
    """What a run trains; trainer/kinds.py holds what must be known of each.

    diffusion: the diffusion transformer. codec: a video compression network. perceptual: the
    encoder that such a network is judged by. captioner: a network that describes clips.
    """

    diffusion = "diffusion"
    codec = "codec"
    perceptual = "perceptual"
    captioner = "captioner"


class CaptionUse(StrEnum):
    """Which of its captions a sample is used with."""

    dense = "dense"
    short = "short"
    dropped = "dropped"


@dataclass
class ObjectiveConfig:
    """What a run learns, by default rectified flow."""

    kind: Annotated[
        str,
        Doc("A file of models/objectives, or one's own dotted module (KINESCALE_PLUGINS)."),
    ] = "flow"
    caption_dropout: Annotated[Share, Doc("Share of samples trained without their caption.")] = 0.1
    dense_captions: Annotated[
        Share,
        Doc(
            "Share of the others trained with the dense caption, the rest with the short "
            "one (a mix keeps short prompts in the distribution: Betker et al. 2023, "
            "section 3.3)."
        ),
    ] = 0.95
    shift_tokens: Annotated[
        float,
        Gt(0),
        Doc("Clips longer than so many tokens train at noisier times (models/objectives/flow.py)."),
    ] = 512.0
    most_shift: Annotated[
        float,
        Ge(0),
        Doc(
            "Largest shift toward noise of any clip, s = sqrt(tokens / shift_tokens): 4 takes the "
            "median of a logit-normal to t = 0.2; 0 caps nothing."
        ),
    ] = 0.0
    density: Annotated[
        list[TimePart],
        Doc(
            "Parts of the density of training times; several are a mixture, empty is one "
            "logit-normal of mean 0 and width 1."
        ),
    ] = field(default_factory=list)
    spread: Annotated[
        float,
        Ge(0),
        Doc(
            "Standard deviation of the latents, against which log-SNR is stated; filled in when a "
            "run is composed whose density needs it, from the data set's manifest or the codec."
        ),
    ] = 0.0
    stratified: Annotated[
        bool,
        Doc("Spread the times of a pack's samples evenly over the density, one in each share."),
    ] = False
    prediction: Annotated[Prediction, Doc("What the network's output stands for.")] = (
        Prediction.velocity
    )
    weight: Annotated[
        Weighting,
        Doc(
            "How much squared velocity errors weigh at their times in training; validation "
            "measures them unweighted."
        ),
    ] = Weighting.uniform
    t_range: Annotated[
        list[Share],
        Len(2, 2),
        Doc("Times trained and validated, from noise (0) to data (1); two ranges are two experts."),
    ] = field(default_factory=lambda: [0.0, 1.0])
    tasks: Annotated[
        dict[str, Finite],
        Doc("Weights of what is given of clips in training (models/tasks.py); empty: nothing is."),
    ] = field(default_factory=dict)
    options: Annotated[dict[str, Finite], Doc("Numbers that one kind alone knows.")] = field(
        default_factory=dict
    )


@dataclass
class HorizonConfig:
    """How long a run is: exactly one of the three is positive."""

    flops: Annotated[float, Ge(0), Doc("Exact training FLOPs (models/count.py).")] = 0.0
    tokens: Annotated[float, Ge(0), Doc("Video tokens.")] = 0.0
    steps: Annotated[int, Ge(0), Doc("Optimizer steps.")] = 0


@dataclass
class BranchConfig:
    """Begin at a checkpoint of another run; see branch.py."""

    run: Annotated[str, Doc("Folder of the other run; empty begins at nothing.")] = ""
    step: Annotated[
        int, Ge(0), Doc("Step of its checkpoint, positive with branch.run and only there.")
    ] = 0


@dataclass
class ValidationConfig:
    """A quiet y-axis: fixed clips, fixed noise, stratified times."""

    splits: Annotated[
        list[str],
        MinLen(1),
        Doc(
            "Splits to validate on: the loss of the first is the run's, the others stand beside it."
        ),
    ] = field(default_factory=lambda: ["val_worlds", "val_real"])
    samples: Annotated[int, Ge(1), Doc("Clips per split.")] = 96
    times: Annotated[
        int, Ge(1), Doc("Strata of t in (0, 1); each clip is seen at all of them.")
    ] = 8
    curve_points: Annotated[
        int, Ge(0), Doc("Shorter validations during the run, for its curve; 0 makes none.")
    ] = 5
    curve_samples: Annotated[int, Ge(1), Doc("Clips of each shorter validation.")] = 24
    noise_seed: Annotated[
        Seed, Doc("Seed of the fixed noise, the same for all runs of a study.")
    ] = 1234
    captions: Annotated[CaptionUse, Doc("Which caption the clips are validated with.")] = (
        CaptionUse.dense
    )


@dataclass
class CheckpointConfig:
    """When to save, beside every signal to stop."""

    seconds: Annotated[float, Ge(0), Doc("Time between two checkpoints; 0 turns them off.")] = 60.0
    steps: Annotated[int, Ge(0), Doc("Steps between two checkpoints; 0 turns them off.")] = 0
    keep: Annotated[int, Ge(1), Doc("Good checkpoints that stay on disk.")] = 2
    background: Annotated[
        bool, Doc("Write in a thread, so that a step waits for the copy only.")
    ] = True


class NanPolicy(StrEnum):
    """What to do when a loss or gradient is not a number."""

    stop = "stop"
    skip = "skip"


class SpikePolicy(StrEnum):
    """What to do when the loss jumps: note it, skip the update, or rewind and skip the batches."""

    log = "log"
    skip = "skip"
    rewind = "rewind"


@dataclass
class FaultConfig:
    """What a run does when something breaks; every event is counted and logged."""

    on_nan: Annotated[
        NanPolicy,
        Doc(
            "Stop at a loss or gradient that is no number, or skip the update and keep the "
            "optimizer state."
        ),
    ] = NanPolicy.stop
    max_skips: Annotated[int, Ge(0), Doc("Most updates skipped in a row before the run stops.")] = (
        10
    )
    on_spike: Annotated[
        SpikePolicy, Doc("Log a spike, skip its update, or rewind and skip its batches.")
    ] = SpikePolicy.log
    spike_factor: Annotated[
        float,
        Gt(1),
        Doc("A spike is a step's loss above this many times the median of the steps before it."),
    ] = 3.0
    spike_window: Annotated[int, Ge(8), Doc("Steps of that median.")] = 64
    max_rewinds: Annotated[int, Ge(0), Doc("A run that needs more rewinds has diverged.")] = 3
    beat_seconds: Annotated[float, Gt(0), Doc("How often each rank writes a sign of life.")] = 5.0
    stall_seconds: Annotated[
        float,
        Ge(0),
        Doc(
            "A run in which no step ends for so long reports the rank that hangs and exits; "
            "0 turns it off."
        ),
    ] = 600.0


@dataclass
class RunConfig:
    """Everything that defines a run and how it is carried out.

    The first block is the experiment and enters its hash; the second is the attempt.
    """

    kind: Annotated[RunKind, Doc("What is trained. An experiment's file says it.")] = (
        RunKind.diffusion
    )
    name: Annotated[str, Doc("First part of the run folder's name.")] = "run"
    seed: Annotated[
        Seed,
        Doc("Decides initial weights, the order of samples, noise, times and dropped captions."),
    ] = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    text: TextConfig = field(default_factory=TextConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    horizon: HorizonConfig = field(default_factory=HorizonConfig)
    branch: BranchConfig = field(default_factory=BranchConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    log: LogConfig = field(default_factory=LogConfig)
    run_root: Annotated[str, Doc("Folder of the run folders.")] = "runs"

    @property
    def cell(self) -> tuple[int, int, int]:
        """Source pixels of one token as (frames, height, width): codec stride times patch."""
        frames, height, width = self.codec.stride
        return frames, 2 * height, 2 * width

    @property
    def batch_tokens(self) -> int:
        """Token budget of one optimizer step over all ranks."""
        return self.data.pack_tokens * self.data.packs_per_step

    def check(self) -> None:
        """Raise ValueError on a value out of bounds and on values that cannot work together."""
        check_bounds(self)
        check_name(self.name)
        check_model(self.model)
        check_objective(self.objective)
        check_tasks(self.objective.tasks)
        if self.model.values_per_token != 4 * self.codec.channels:
            raise ValueError(
                f"model.values_per_token={self.model.values_per_token}: must be 4 x codec.channels"
                f"={self.codec.channels}. Use {4 * self.codec.channels}."
            )
        if self.model.text_width != self.text.width:
            raise ValueError(
                f"model.text_width={self.model.text_width}: must equal text.width"
                f"={self.text.width}. Use {self.text.width}."
            )
        if list(self.model.spread) != list(self.codec.spread):
            raise ValueError(
                f"model.spread={self.model.spread}: must equal codec.spread={self.codec.spread}. "
                "Leave it to the codec's file."
            )
        horizon = [self.horizon.flops, self.horizon.tokens, self.horizon.steps]
        if sum(value > 0 for value in horizon) != 1:
            raise ValueError(
                f"horizon.flops,tokens,steps={horizon}: exactly one must be positive. "
                "Set for example horizon.flops=1e12."
            )
        phases = self.optim.warmup + self.optim.decay
        if phases > 1:
            raise ValueError(f"optim.warmup+decay={phases:g}: must be at most 1. Use 0.05 and 0.3.")
        if bool(self.branch.run) != (self.branch.step > 0):
            raise ValueError(
                f"branch.step={self.branch.step}: must be positive with branch.run, and only "
                "there. Use 200."
            )
        beat, stall = self.faults.beat_seconds, self.faults.stall_seconds
        if 0 < stall <= 2 * beat:
            raise ValueError(
                f"faults.stall_seconds={stall:g}: must be 0 or more than twice "
                f"faults.beat_seconds={beat:g}. Use 600."
            )
        self.log.check()
        self.parallel.check(self.model, self.data.packs_per_step)
        check_optimizer(self.optim.kind, self.model, self.parallel)


def compose_run(overrides: list[str]) -> RunConfig:
    """Compose a run from ``trainer/conf`` and Hydra overrides; raise ValueError with the remedy."""
    return _settled(compose_as(RunConfig, "run", overrides))


def _settled(run: RunConfig) -> RunConfig:
    """Fill in what follows from the codec's folder, and check the run."""
    fill(run.codec)
    if run.codec.kind is not CodecKind.wavelet:  # the network's shape follows the codec
        run.model.values_per_token = 4 * run.codec.channels
        run.model.spread = list(run.codec.spread)
    if needs_spread(run.objective.density) and not run.objective.spread:
        run.objective.spread = _measured_spread(run)
    run.check()
    if not beside_text(run.objective.tasks):  # the same run, whether it is said or not
        run.objective.tasks = {}
    return run


def _measured_spread(run: RunConfig) -> float:
    """Return the spread that encoding measured, the codec's where the data set does not say it."""
    try:
        manifest = {} if run.data.mixture else read_manifest(run.data.root)
    except (OSError, ValueError):  # the data set is elsewhere, or has no manifest
        manifest = {}
    measured = manifest.get("latent_statistics", {}).get("std")
    return root_mean_square(measured or run.codec.spread)


def load_run(folder: Path) -> RunConfig:
    """Load the frozen config of a run folder and check it."""
    return _settled(load_as(RunConfig, folder))
