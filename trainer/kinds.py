"""Every kind of run in one table: how it is composed, named, frozen, loaded, trained and measured.

What a run is stands in its config, as ``kind``; nobody guesses it from a name or from text.
Torch-free: what trains a kind is imported when one is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from data.notices import doing
from trainer.captioner.config import (
    CaptionerRun,
    captioner_identity,
    compose_captioner,
    load_captioner_run,
)
from trainer.compose import freeze_as, hashed_name, read_frozen, said_kind
from trainer.config import RunConfig, RunKind, compose_run, load_run
from trainer.identity import identity
from trainer.run.start import start_processes
from trainer.vae.config import (
    PerceptualRun,
    VaeRun,
    compose_perceptual,
    compose_vae,
    load_perceptual_run,
    load_vae_run,
)

AnyRun = RunConfig | VaeRun | PerceptualRun | CaptionerRun
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Kind:
    """What must be known of a kind of run.

    schema: its dataclass.
    compose: Hydra overrides -> run; load: run folder -> run. Both raise ValueError.
    identity: run -> what defines the experiment, plain values; the folder's name hashes it.
    train: (run, folder, should_stop) -> False when it was stopped before its end; imports torch.
    splits: run -> held-out splits; ``loss`` in result.json is that of the first.
    loss: what that loss is, in words.
    columns: what result.json says of every run, in the order of a table; a kind that does not
        count FLOPs or tokens has no such column.
    lengths: units in which a run's length may be given, with the key of each. Of several keys one
        is positive.
    counts: the unit that metrics.jsonl counts work in, and budgets are stated in: flops or steps.
    group: key that groups runs in W&B, '' where a kind is not mirrored.
    """

    schema: type
    compose: Callable[[list[str]], Any]
    load: Callable[[Path], Any]
    identity: Callable[[Any], dict[str, Any]]
    train: Callable[[Any, Path, Stop], bool]
    splits: Callable[[Any], Sequence[str]]
    loss: str
    columns: tuple[str, ...]
    lengths: Mapping[str, str] = field(default_factory=lambda: {"steps": "steps"})
    counts: str = "steps"
    group: str = ""


def _train_diffusion(run: RunConfig, folder: Path, should_stop: Stop) -> bool:
    with doing("importing libraries"):
        from trainer.diffusion.attempt import train_run

    return train_run(run, folder, should_stop)


def _train_codec(run: VaeRun, folder: Path, should_stop: Stop) -> bool:
    with doing("importing libraries"):
        from trainer.vae.train import train_here

    return train_here(run, folder, should_stop)


def _train_perceptual(run: PerceptualRun, folder: Path, should_stop: Stop) -> bool:
    with doing("importing libraries"):
        from trainer.vae.perceptual import train_here

    return train_here(run, folder, should_stop)


def _train_captioner(run: CaptionerRun, folder: Path, should_stop: Stop) -> bool:
    with doing("importing libraries"):
        from trainer.captioner.train import train_here

    return train_here(run, folder, should_stop)


_COUNTED = (
    "params", "tokens", "flops", "flops_6nd", "loss", "loss_noise", "lr", "batch_tokens", "width",
    "depth", "steps", "seed", "loss_real", "real_token_share", "seconds", "world_size",
    "zero_stage", "padding_share",
)  # fmt: skip
_SMALL = ("params", "steps", "samples", "loss", "seconds")

KINDS: Mapping[RunKind, Kind] = {
    RunKind.diffusion: Kind(
        RunConfig,
        compose_run,
        load_run,
        identity,
        _train_diffusion,
        splits=lambda run: run.validation.splits,
        loss="error of what the objective predicts, at fixed noise and strata of times",
        columns=_COUNTED,
        lengths={key: f"horizon.{key}" for key in ("flops", "tokens", "steps")},
        counts="flops",
        group="log.group",
    ),
    RunKind.codec: Kind(
        VaeRun,
        compose_vae,
        load_vae_run,
        VaeRun.identity,
        _train_codec,
        splits=lambda run: run.validation.splits,
        loss="squared error of pixels of peak 1, geometric mean over clips: 10^(-PSNR / 10)",
        columns=(*_SMALL, "psnr", "ssim", "flicker", "values_per_pixel"),
    ),
    RunKind.perceptual: Kind(
        PerceptualRun,
        compose_perceptual,
        load_perceptual_run,
        PerceptualRun.identity,
        _train_perceptual,
        splits=lambda run: [run.val_split],
        loss="cross-entropy of a label of a frame, in nats",
        columns=(*_SMALL, "base_rate_nats_a_label", "accuracy", "majority_accuracy"),
    ),
    RunKind.captioner: Kind(
        CaptionerRun,
        compose_captioner,
        load_captioner_run,
        captioner_identity,
        _train_captioner,
        splits=lambda run: [run.validation_split],
        loss="cross-entropy of a word of a caption, in nats",
        columns=(*_SMALL, "caption_logprob"),
    ),
}


def kind_of(overrides: Sequence[str]) -> RunKind:
    """Return the kind of run that Hydra overrides ask for.

    ``kind=`` says it, or the file of ``experiment=``; where neither does, it is a diffusion
    transformer's. Raises ValueError where they disagree, and on a kind that there is not.
    """
    return _parse(said_kind(overrides) or RunKind.diffusion)


def kind_in(folder: Path) -> RunKind:
    """Return the kind of a frozen run. Raises ValueError where there is none."""
    config = read_frozen(folder)
    return _parse(str(config.kind)) if "kind" in config else _kind_of_old(config)


def _parse(name: str) -> RunKind:
    if name not in list(RunKind):
        raise ValueError(f"kind={name}: must be one of {', '.join(RunKind)}. Leave it out for one "
                         "that the experiment says.")  # fmt: skip
    return RunKind(name)


def _kind_of_old(config: DictConfig) -> RunKind:
    """Tell the kind of a run frozen before 2026-12, when runs did not say it, by its sections.

    For such folders alone: what is frozen now has ``kind``.
    """
    only = {"vae": RunKind.codec, "perceptual": RunKind.perceptual, "captioner": RunKind.captioner}
    return next((kind for name, kind in only.items() if name in config), RunKind.diffusion)


def compose_any(overrides: list[str]) -> AnyRun:
    """Compose a run of the kind that the overrides ask for; raise ValueError with the remedy."""
    run: AnyRun = KINDS[kind_of(overrides)].compose(overrides)
    return run


def load_any(folder: Path) -> AnyRun:
    """Load the frozen config of a run of any kind and check it. Raises ValueError."""
    run: AnyRun = KINDS[kind_in(folder)].load(folder)
    return run


def folder_of(run: AnyRun) -> Path:
    """Return a run's folder, whether it exists or not."""
    return Path(run.run_root) / hashed_name(run.name, KINDS[run.kind].identity(run))


def freeze_any(run: AnyRun) -> Path:
    """Write ``config.yaml`` into the run's folder, or check what it holds; return the folder.

    Raises ValueError where it holds another experiment.
    """
    kind, folder = KINDS[run.kind], folder_of(run)
    freeze_as(run, folder, kind.load, kind.identity)
    return folder


def processes_of(run: AnyRun) -> int:
    """Return how many processes train a run; a captioner is trained by one."""
    return 1 if isinstance(run, CaptionerRun) else run.parallel.processes


def start_command(run: AnyRun, folder: Path) -> list[str]:
    """Return the command that trains a frozen run with its number of processes."""
    return start_processes(processes_of(run), folder)
