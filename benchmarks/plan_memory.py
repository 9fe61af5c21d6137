"""Predicted against real bytes of a training step on one process, by what is computed again.

usage: python -m benchmarks.plan_memory [--json FILE]

Real: the allocator's own events (torch.profiler) while one pack goes forward and backward through
the trainer's blocks, their recomputation included; its peak over what was held before (parameters,
gradients and the pack). Predicted: launch/planner/activations.py. "gathered" runs modulation as
CUDA does, on CPU. Parameters, gradients, optimizer and averages are exact: tests/trainer/parallel
(test_cost.py, test_scale.py), and their resident peak under ZeRO 0 to 3: benchmarks.zero_memory.

torch's MemTracker agrees but under full recomputation, where it counts two rows of D a block that
the allocator has freed.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.packs import Grid, build_model, build_sample, our_loss
from launch.planner.activations import (
    PackShape,
    block_bytes,
    edge_bytes,
    rotation_bytes,
    working_bytes,
)
from models.config import ModelConfig
from models.dit.modulation import Spans
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.parallel.recompute import wrap_blocks

MARK = "forward is done"
CLIPS = {
    "one clip": [((2, 16, 16), 32)],
    "three alike": [((1, 16, 16), 24)] * 3,
    "mixed": [((1, 8, 16), 8), ((1, 16, 16), 32), ((2, 16, 16), 0), ((3, 12, 16), 48)],
}
SHAPES = {"w128d6": (128, 6, 32), "w256d3": (256, 3, 64)}


@dataclass(frozen=True)
class Case:
    """One measurement: bytes kept after the forward pass, and at the peak of the backward pass."""

    model: str
    clips: str
    precision: str
    recompute: str
    gathered: bool
    kept: float
    kept_predicted: float
    peak: float
    peak_predicted: float

    @property
    def error(self) -> float:
        """Of the predicted peak."""
        return self.peak_predicted / self.peak - 1


def predict(
    model: ModelConfig, parallel: ParallelConfig, pack: PackShape, gathers: bool
) -> tuple[float, float]:
    """Return (kept after the forward pass, peak) of one pack."""
    kept = model.depth * block_bytes(model, parallel, pack, gathers, parallel.recompute)
    kept += edge_bytes(model, parallel, pack, gathers) + rotation_bytes(model, parallel, pack)
    return kept, kept + working_bytes(model, parallel, pack, gathers)


def measure(
    model: ModelConfig,
    parallel: ParallelConfig,
    clips: Sequence[tuple[Grid, int]],
    gathers: bool,
) -> tuple[float, float, PackShape]:
    """Return bytes kept after the forward pass and at the peak, and the pack's shape."""
    dtype = torch.bfloat16 if parallel.precision is Precision.bf16 else torch.float32
    network = build_model(model).to(dtype)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    wrap_blocks(list(network.blocks), parallel.recompute)
    sample = build_sample(model, list(clips))
    with patch.object(Spans, "gathers", lambda spans, x: gathers):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
            loss = our_loss(network, sample)
            with record_function(MARK):
                pass
            loss.backward()
    kept, peak = _replay(events)
    captions = sum(max(1, length) for _, length in clips)
    return kept, peak, PackShape(len(sample.pack.latent), len(clips), captions)


def _replay(events: profile) -> tuple[float, float]:
    """Return bytes held at the mark, and most bytes held."""
    assert events.profiler is not None
    found = events.profiler.kineto_results.events()
    (mark,) = (event.start_ns() for event in found if event.name() == MARK)
    held = kept = peak = 0
    for event in sorted(
        (e for e in found if e.name() == "[memory]"), key=lambda event: event.start_ns()
    ):
        held += event.nbytes()
        peak = max(peak, held)
        kept = held if event.start_ns() <= mark else kept
    return kept, peak


def run_case(shape: str, clips: str, precision: Precision, mode: Recompute, gathers: bool) -> Case:
    """Measure and predict one case."""
    width, depth, head_dim = SHAPES[shape]
    model = ModelConfig(width=width, depth=depth, head_dim=head_dim)
    stage = 1 if precision is Precision.bf16 else 0
    parallel = ParallelConfig(recompute=mode, precision=precision, zero_stage=stage, device="cpu")
    kept, peak, pack = measure(model, parallel, CLIPS[clips], gathers)
    predicted = predict(model, parallel, pack, gathers)
    return Case(
        shape, clips, precision.value, mode.value, gathers, kept, predicted[0], peak, predicted[1]
    )


def cases() -> list[Case]:
    """Measure every mode on two models, packs of several shapes, and bf16 as on CUDA."""
    found = []
    for mode in Recompute:
        for clips in CLIPS:
            for gathers in (False, True):
                found.append(run_case("w128d6", clips, Precision.fp32, mode, gathers))
        found.append(run_case("w256d3", "mixed", Precision.fp32, mode, True))
        found.append(run_case("w128d6", "one clip", Precision.bf16, mode, True))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = cases()
    table = Table(title="bytes of a forward and backward pass, MiB")
    names = ("model", "pack", "arithmetic", "recompute", "modulation", "kept: predicted", "actual")
    for name in (*names, "peak: predicted", "actual", "error"):
        table.add_column(name, justify="right" if ":" in name or name == "actual" else "left")
    for case in found:
        kind = "gathered" if case.gathered else "by segment"
        sizes = (case.kept_predicted, case.kept, case.peak_predicted, case.peak)
        shown = (f"{size / 2**20:.2f}" for size in sizes)
        table.add_row(
            case.model, case.clips, case.precision, case.recompute, kind, *shown,
            f"{case.error:+.1%}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    worst = max(found, key=lambda case: abs(case.error))
    console.print(f"largest error of a peak: {worst.error:+.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(case) for case in found], indent=1))


if __name__ == "__main__":
    main()
