"""Schema of a run, and the one place that composes it; torch-free.

A run is composed once by Hydra, frozen to ``RUN/config.yaml``, and only loaded from there by ranks.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.config import DataConfig
from data.files import write_text
from models.config import CodecConfig, ModelConfig, TextConfig
from trainer.codec.files import fill, fingerprint
from trainer.compose import check_name, explain, refuse_unknown
from trainer.layout.config import ParallelConfig

CONF_DIR = Path(__file__).parent / "conf"


class WandbMode(StrEnum):
    """Where metrics are mirrored to besides ``metrics.jsonl``."""

    disabled = "disabled"
    offline = "offline"
    online = "online"


class CaptionUse(StrEnum):
    """Which of its captions a sample is used with."""

    dense = "dense"
    short = "short"
    dropped = "dropped"


@dataclass
class ObjectiveConfig:
    """Rectified flow.

    caption_dropout: share of samples trained without their caption.
    dense_captions: share of the others trained with the dense caption, the rest with the short one
        (a mix keeps short prompts in the distribution: Betker et al. 2023, section 3.3).
    shift_tokens: clips longer than this many tokens train at noisier times; see models/flow.py.
    """

    caption_dropout: float = 0.1
    dense_captions: float = 0.95
    shift_tokens: float = 512.0


@dataclass
class OptimConfig:
    """AdamW with warm-up, constant and decay phases.

    lr: peak learning rate at ``model.base_width``.
    warmup, decay: shares of the run spent rising linearly from 0 and falling linearly to 0.
    ema_sigma: width of the power-function EMA as a share of the run (EDM2, Karras et al. 2024).
    clip: largest global gradient norm; 0 turns clipping off.
    """

    lr: float = 5e-3
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: float = 0.05
    decay: float = 0.3
    clip: float = 1.0
    ema_sigma: float = 0.04


@dataclass
class HorizonConfig:
    """How long a run is: exactly one of the three is positive.

    flops: exact training FLOPs (models/dit/count.py); tokens: video tokens; steps: optimizer steps.
    """

    flops: float = 0.0
    tokens: float = 0.0
    steps: int = 0


@dataclass
class BranchConfig:
    """Begin at a checkpoint of another run; see branch.py.

    run: its folder; empty begins at nothing. step: of the checkpoint.
    """

    run: str = ""
    step: int = 0


@dataclass
class ValidationConfig:
    """A quiet y-axis: fixed clips, fixed noise, stratified times.

    splits: the first is the run's loss, the others stand beside it.
    samples: clips per split; times: strata of t in (0, 1), each clip is seen at all of them.
    curve_points: shorter validations during the run, for its curve; curve_samples clips each.
    noise_seed: seed of the fixed noise, the same for all runs of a study.
    captions: which caption the clips are validated with.
    """

    splits: list[str] = field(default_factory=lambda: ["val_worlds", "val_real"])
    samples: int = 96
    times: int = 8
    curve_points: int = 5
    curve_samples: int = 24
    noise_seed: int = 1234
    captions: CaptionUse = CaptionUse.dense


@dataclass
class CheckpointConfig:
    """When to save: every ``seconds`` and on a signal; ``keep`` good ones stay on disk.

    background: write in a thread, so that a step waits for the copy only.
    """

    seconds: float = 60.0
    steps: int = 0
    keep: int = 2
    background: bool = True


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
    """What a run does when something breaks; every event is counted and logged.

    on_nan: stop, or skip the update and keep the optimizer state; at most ``max_skips`` in a row.
    on_spike: see SpikePolicy; a spike is a step's loss above ``spike_factor`` times the median of
    the last ``spike_window`` steps. max_rewinds: a run that needs more has diverged.
    beat_seconds: how often each rank writes a sign of life. stall_seconds: a run in which no step
    ends for so long reports the rank that hangs and exits; 0 turns it off.
    """

    on_nan: NanPolicy = NanPolicy.stop
    max_skips: int = 10
    on_spike: SpikePolicy = SpikePolicy.log
    spike_factor: float = 3.0
    spike_window: int = 64
    max_rewinds: int = 3
    beat_seconds: float = 5.0
    stall_seconds: float = 600.0


@dataclass
class LogConfig:
    """What to log: every ``every`` steps to metrics.jsonl, mirrored to W&B.

    samples: also write the key and visit of every sample each rank trained on, to ``samples/``.
    """

    every: int = 10
    samples: bool = False
    wandb: WandbMode = WandbMode.offline
    project: str = "kinescale"
    group: str = ""
    tags: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """Everything that defines a run and how it is carried out.

    The first block is the experiment and enters its hash; the second is the attempt.
    """

    name: str = "run"
    seed: int = 0
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
    run_root: str = "runs"

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
        """Raise ValueError on values that cannot work together."""
        check_name(self.name)
        self.model.check()
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
        if sum(value > 0 for value in horizon) != 1 or min(horizon) < 0:
            raise ValueError(
                f"horizon.flops,tokens,steps={horizon}: exactly one must be positive. "
                "Set for example horizon.flops=1e12."
            )
        _require("optim.lr", self.optim.lr, self.optim.lr > 0, "be positive", "5e-3")
        phases = self.optim.warmup + self.optim.decay
        _require("optim.warmup+decay", phases, 0 <= phases <= 1, "lie in [0, 1]", "0.05 and 0.3")
        _require(
            "objective.caption_dropout",
            self.objective.caption_dropout,
            0 <= self.objective.caption_dropout <= 1,
            "lie in [0, 1]",
            "0.1",
        )
        dense = self.objective.dense_captions
        _require("objective.dense_captions", dense, 0 <= dense <= 1, "lie in [0, 1]", "0.95")
        sigma = self.optim.ema_sigma
        _require("optim.ema_sigma", sigma, 0 < sigma < 0.28, "lie in (0, 0.28)", "0.04")
        branch = self.branch
        _require(
            "branch.step",
            branch.step,
            bool(branch.run) == (branch.step > 0) and branch.step >= 0,
            "be positive with branch.run, and only there",
            "200",
        )
        _require("seed", self.seed, self.seed >= 0, "be at least 0", "0")
        _require("log.every", self.log.every, self.log.every > 0, "be at least 1", "10")
        validation = self.validation
        _require("validation.times", validation.times, validation.times > 0, "be at least 1", "8")
        _require("validation.splits", validation.splits, validation.splits, "not be empty", "[val]")

        self.parallel.check(self.model, self.data.packs_per_step)
        self._check_faults()

    def _check_faults(self) -> None:
        faults = self.faults
        factor = faults.spike_factor
        _require("faults.spike_factor", factor, factor > 1, "be above 1", "3")
        window = faults.spike_window
        _require("faults.spike_window", window, window >= 8, "be at least 8", "64")
        beat, stall = faults.beat_seconds, faults.stall_seconds
        _require("faults.beat_seconds", beat, beat > 0, "be positive", "5")
        _require(
            "faults.stall_seconds",
            stall,
            stall == 0 or stall > 2 * beat,
            f"be 0 or more than twice faults.beat_seconds={beat}",
            "600",
        )


def _require(key: str, value: object, ok: object, rule: str, remedy: str) -> None:
    if not ok:
        raise ValueError(f"{key}={value}: must {rule}. Use {remedy}.")


def compose_run(overrides: list[str]) -> RunConfig:
    """Compose a run from ``trainer/conf`` and Hydra overrides; raise ValueError with the remedy."""
    ConfigStore.instance().store(name="schema", node=RunConfig)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR.resolve())):
        try:
            return _to_run(compose(config_name="run", overrides=overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, OmegaConf.structured(RunConfig))) from error


def _to_run(config: DictConfig) -> RunConfig:
    refuse_unknown(config, OmegaConf.structured(RunConfig))
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    fill(run.codec)
    if run.codec.path:  # the network's shape follows the codec's folder
        run.model.values_per_token = 4 * run.codec.channels
        run.model.spread = list(run.codec.spread)
    run.check()
    return run


def identity(run: RunConfig) -> dict[str, Any]:
    """Return what defines the experiment, whatever machine carries it out."""
    config = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert isinstance(config, dict)
    experiment = ("model", "codec", "text", "objective", "optim", "horizon", "validation", "seed")
    chosen = {str(key): config[key] for key in experiment}
    chosen["codec"] = fingerprint(run.codec)
    if run.branch.run:
        chosen["branch"] = {"run": Path(run.branch.run).name, "step": run.branch.step}
    planning = ("train_split", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: config["data"][key] for key in planning}
    chosen["data"]["name"] = _data_name(run.data.root)
    # Left out where they have no effect, so that earlier runs keep their names.
    for key in ("in_order", "shuffle_shards", "limit"):
        if config["data"][key]:
            chosen["data"][key] = config["data"][key]
    if run.data.mixture:
        chosen["data"]["mixture"] = [
            asdict(member) | {"root": _data_name(member.root)} for member in run.data.mixture
        ]
    return chosen


def _data_name(root: str) -> str:
    return "/".join(Path(root).parts[-2:])


def run_name(run: RunConfig) -> str:
    """Return the folder name: a readable prefix and the hash of the experiment; never parsed."""
    text = json.dumps(identity(run), sort_keys=True)
    return f"{run.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def freeze(run: RunConfig, folder: Path) -> None:
    """Write ``config.yaml`` into a run folder, or check that what it holds is this experiment."""
    path = folder / "config.yaml"
    if path.exists() and identity(load_run(folder)) != identity(run):
        raise ValueError(
            f"run={folder}: holds another experiment. Choose another name or delete the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(run)))


def load_run(folder: Path) -> RunConfig:
    """Load the frozen config of a run folder and check it."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ValueError(f"run={folder}: has no config.yaml. Give a run folder made by a launch.")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path))
        assert isinstance(merged, DictConfig)
        return _to_run(merged)
    except OmegaConfBaseException as error:
        text = explain(error, OmegaConf.structured(RunConfig))
        raise ValueError(f"{path}: {text}") from error
