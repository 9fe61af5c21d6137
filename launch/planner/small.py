"""What can be said ahead of a small network's run: closed forms, and in words what has none.

The video compression network, its perceptual encoder and the captioner train data-parallel in fp32
by ``trainer.small``; every process holds all of one.
"""

from dataclasses import dataclass
from typing import Any

from launch.planner.machine import MachineConfig
from models.captioner.count import count_captioner_params
from models.captioner.vocabulary import most_pieces
from models.codec.count import count_perceptual_params, count_vae_params, vae_flops
from models.count import BACKWARD_FACTOR
from trainer.captioner.config import CaptionerRun
from trainer.config import STATE_BYTES
from trainer.kinds import folder_of, processes_of
from trainer.vae.config import PerceptualRun, VaeRun

SmallRun = VaeRun | PerceptualRun | CaptionerRun
# fp32: weights, gradients, their sum over processes, two moments, the average.
HELD_BYTES = 6 * 4
_PATCH = 2 * 2  # latent positions of a planner's token
_ACTIVATIONS = "memory of activations: it depends on the sizes of the clips of a step"


@dataclass(frozen=True)
class SmallPlan:
    """What a run will need, as far as it is known.

    params: trainable ones; ``exact`` where no data set decides about them, else the most.
    step_tokens: the most video tokens of a step. flops: the most of the whole run, None where there
    is no closed form. unknown: what is not modelled, in words.
    """

    name: str
    kind: str
    machine: MachineConfig
    processes: int
    params: int
    exact: bool
    steps: int
    step_tokens: int
    keep: int
    flops: float | None
    unknown: list[str]

    @property
    def held_bytes(self) -> float:
        """Bytes of weights and optimizer in each process."""
        return float(HELD_BYTES * self.params)

    @property
    def checkpoint_bytes(self) -> float:
        """Bytes of one checkpoint."""
        return float(STATE_BYTES * self.params)

    @property
    def disk_bytes(self) -> float:
        """Bytes of checkpoints while one more than are kept is written."""
        return (max(1, self.keep) + 1) * self.checkpoint_bytes

    @property
    def seconds_at_peak(self) -> float | None:
        """Seconds of ``flops`` at the machine's peak, which no training reaches."""
        if self.flops is None:
            return None
        return self.flops / (self.machine.peak("fp32") * self.processes)

    @property
    def fits(self) -> bool:
        """Whether a device has room for what is known to be held."""
        return self.held_bytes <= self.machine.memory_bytes - self.machine.reserved_bytes

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "machine": self.machine.name,
            "processes": self.processes,
            "params": self.params,
            "params_exact": self.exact,
            "steps": self.steps,
            "step_tokens": self.step_tokens,
            "held_bytes": self.held_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
            "disk_bytes": self.disk_bytes,
            "flops": self.flops,
            "seconds_at_peak": self.seconds_at_peak,
            "not_modelled": self.unknown,
        }


def plan_small(run: SmallRun, machine: MachineConfig) -> SmallPlan:
    """Plan one run of a small network."""
    tokens = run.data.pack_tokens * run.data.packs_per_step
    flops: float | None = None
    if isinstance(run, VaeRun):
        params, exact, unknown = count_vae_params(run.vae), True, _beside_codec(run)
        flops = float(BACKWARD_FACTOR * run.steps * tokens * _PATCH * vae_flops(run.vae))
        unknown.append("time: the share of the peak that its convolutions reach is not measured")
    elif isinstance(run, PerceptualRun):
        params, exact = count_perceptual_params(run.perceptual, run.labels), False
        unknown = ["FLOPs and time: frames are drawn from each clip, and their size is the clip's"]
    else:
        pieces, width = most_pieces(run.words.most), run.captioner.width
        params = count_captioner_params(run.captioner, pieces) + (width + 1) * run.hints
        exact = False
        unknown = ["FLOPs and time: they depend on the lengths of captions and clips"]
    return SmallPlan(
        name=folder_of(run).name,
        kind=run.kind.value,
        machine=machine,
        processes=processes_of(run),
        params=params,
        exact=exact,
        steps=run.steps,
        step_tokens=tokens,
        keep=run.checkpoint.keep,
        flops=flops,
        unknown=[*unknown, _ACTIVATIONS, "validation and start-up"],
    )


def _beside_codec(run: VaeRun) -> list[str]:
    """Say which networks a loss looks through, whose FLOPs and weights are not counted."""
    weights = {
        "the perceptual encoder": run.loss.perceptual,
        "LPIPS": run.loss.lpips,
        "the discriminator": run.loss.adversarial,
    }
    used = [name for name, weight in weights.items() if weight]
    return [f"weights and FLOPs of what the loss looks through: {', '.join(used)}"] if used else []
