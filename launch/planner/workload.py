"""What a run works on: clips, packs and steps, from the dataset's index where it is at hand."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index
from data.dataset.tokens import tokens
from data.loading.pieces import pieces_of
from launch.planner.activations import PackShape
from launch.planner.config import PlanConfig
from launch.planner.network import Network
from launch.planner.speed import Batch, training_flops
from models.tasks import expected_spans
from trainer.config import RunConfig
from trainer.diffusion.horizon import plan_horizon

TYPICAL_CLIP = 8192  # tokens: one second at 640 x 480, 24 frames a second, cells of 4 x 16 x 16
TYPICAL_FRAMES = 7  # latent frames of such a clip


@dataclass(frozen=True)
class Clips:
    """Clips of a dataset. segment: the sum of squared lengths over their sum. caption: tokens.

    spans: of a clip, each with a time of its own.
    """

    mean: float
    segment: float
    longest: int
    caption: float
    spans: float = 1.0


@dataclass(frozen=True)
class Workload:
    """A run's length and its packs. measured: from the dataset's index, not assumed."""

    clips: Clips
    steps: int
    step_tokens: float
    step_flops: float
    epochs: float
    measured: bool

    @property
    def tokens(self) -> float:
        """Video tokens of the whole run."""
        return self.steps * self.step_tokens


def plan_workload(run: RunConfig, plan: PlanConfig) -> Workload:
    """Return what a run works on: exactly, or by the plan's assumptions."""
    root = Path(run.data.root)
    if (root / run.data.train_split / "index.jsonl").is_file() and not run.data.mixture:
        return _measured(run, read_index(root, run.data.train_split))
    length = plan.clip_tokens or min(run.data.pack_tokens, TYPICAL_CLIP)
    spans = expected_spans(run.objective.tasks, (TYPICAL_FRAMES, 2, 2))
    clips = Clips(length, length, length, plan.caption_tokens, spans)
    step_tokens = plan.fill * run.batch_tokens
    flops = training_flops(Network.of(run.model), step_tokens, length, plan.caption_tokens)
    return Workload(clips, _steps(run, step_tokens, flops), step_tokens, flops, 0.0, False)


def pack_shape(clips: Clips, pack_tokens: int) -> PackShape:
    """Return the shape of a pack of such clips."""
    segments = _segments(clips, pack_tokens)
    captions = ceil(segments * max(1.0, clips.caption))
    return PackShape(pack_tokens, ceil(segments * clips.spans), captions)


def batch_of(clips: Clips, pack_tokens: int, micros: int) -> Batch:
    """Return what a replica works on in a step."""
    segments = _segments(clips, pack_tokens)
    return Batch(pack_tokens, clips.segment, segments, clips.caption, micros, clips.spans)


def _segments(clips: Clips, pack_tokens: int) -> int:
    return max(1, ceil(pack_tokens / max(1.0, clips.mean)))


def _measured(run: RunConfig, infos: list[SampleInfo]) -> Workload:
    infos = [part for i in infos for part in pieces_of(i, run.cell, run.data.pack_tokens)]
    horizon = plan_horizon(run, infos)
    lengths = [tokens(i.num_frames, i.height, i.width, run.cell) for i in infos]
    total = sum(lengths)
    captions = [max(1, info.caption_tokens) for info in infos]
    clips = Clips(
        mean=total / len(lengths),
        segment=sum(n * n for n in lengths) / total,
        longest=max(lengths),
        caption=sum(c * n for c, n in zip(captions, lengths, strict=True)) / total,
        spans=sum(_spans(run, info) for info in infos) / len(infos),
    )
    epochs = horizon.steps * horizon.step_tokens / total
    return Workload(clips, horizon.steps, horizon.step_tokens, horizon.step_flops, epochs, True)


def _spans(run: RunConfig, info: SampleInfo) -> float:
    if not run.objective.tasks:
        return 1.0
    size = run.codec.latent_shape(info.num_frames, info.height, info.width)
    return expected_spans(run.objective.tasks, size)


def _steps(run: RunConfig, step_tokens: float, step_flops: float) -> int:
    horizon = run.horizon
    if horizon.steps:
        return horizon.steps
    wanted = horizon.tokens / step_tokens if horizon.tokens else horizon.flops / step_flops
    if round(wanted) < 1:
        raise ValueError(
            f"horizon={horizon}: is less than one optimizer step of {step_flops:.3g} FLOPs. "
            "Raise the horizon or shrink the batch."
        )
    return round(wanted)
