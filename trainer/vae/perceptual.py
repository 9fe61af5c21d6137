"""Train the perceptual encoder on what simulators know of their frames.

usage: kinescale train experiment=perceptual_tiny data.root=DATASET [key=value ...]

The labels (floors, walls, light, cameras, objects in sight) come from the truth in the shards. The
same command resumes a run, a finished one is not repeated. The encoder is in RUN/encoder: use it
with loss.perceptual_path=RUN/encoder. Keys: trainer/vae/config.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.dataset.sample import SampleInfo
from data.dataset.shards import read_truth
from data.loading.batch import Sample, Step
from data.loading.loader import Loader, index_digest, load_fixed
from models.codec.codec import to_pixels
from models.codec.perceptual import PerceptualEncoder
from models.config import PerceptualConfig
from trainer.parallel.mesh import Mesh, start_mesh, stop_mesh
from trainer.rng import generator
from trainer.small import SmallTraining, Term
from trainer.vae.config import PerceptualRun
from trainer.vae.labels import choose_labels, frame_labels
from trainer.vae.perceptual_files import save_perceptual

ENCODER = "encoder"
_CELL = (4, 16, 16)

Batch = list[tuple[Tensor, Tensor]]


class PerceptualTask:
    """What the small loop needs to know: frames with their labels, the loss, and the end."""

    def __init__(self, run: PerceptualRun, folder: Path, mesh: Mesh, infos: Sequence[SampleInfo]):
        self.run, self.folder, self.mesh, self._infos = run, folder, mesh, infos
        known = [info for info in infos if info.truth_nbytes]
        if not known:
            raise ValueError(
                f"data.root={run.data.root}: nothing is known of its clips. Use rendered ones: "
                "kinescale worlds --help."
            )
        self._truths: dict[str, dict[str, Any]] = {}
        labels = (self._labels(run.data.train_split, info, 0) for info in known)
        outputs = choose_labels(labels, run.labels, run.min_share)
        config = PerceptualConfig(list(run.perceptual.widths), outputs)
        self.encoder = PerceptualEncoder(config)
        word = int(generator(run.seed, "init", "", 0).integers(0, 2**62))
        self.encoder.reset_parameters(torch.Generator().manual_seed(word))
        self.encoder.to(mesh.device)

    def _labels(self, split: str, info: SampleInfo, frame: int) -> set[str]:
        if info.key not in self._truths:
            truth = read_truth(self.run.data.root, split, info)
            assert truth is not None
            self._truths[info.key] = truth
        return frame_labels(self._truths[info.key], frame)

    def _targets(self, split: str, info: SampleInfo, frames: list[int]) -> Tensor:
        found = [self._labels(split, info, frame) for frame in frames]
        outputs = self.encoder.config.outputs
        return torch.tensor([[float(name in labels) for name in outputs] for labels in found])

    def prepare(self, step: Step) -> Batch:
        """Return (frames, labels) of every clip that a simulator made."""
        samples = [s for pack in step.packs for s in pack.samples if s.info.truth_nbytes]
        return [self._pair(self.run.data.train_split, sample) for sample in samples]

    def _pair(self, split: str, sample: Sample) -> tuple[Tensor, Tensor]:
        assert sample.frames is not None
        draw = generator(self.run.seed, "frames", sample.info.key, sample.visit)
        count = min(self.run.frames, len(sample.frames))
        frames = sorted(draw.random(len(sample.frames)).argsort()[:count].tolist())
        pixels = to_pixels(sample.frames[frames]).to(self.mesh.device)
        return pixels, self._targets(split, sample.info, frames).to(self.mesh.device)

    def loss(self, module: nn.Module, batch: Batch) -> list[Term]:
        """Return the cross-entropy a label, in nats."""
        total, count = torch.zeros((), device=self.mesh.device), 0
        for pixels, targets in batch:
            logits = module(pixels)
            total = total + functional.binary_cross_entropy_with_logits(
                logits, targets, reduction="sum"
            )
            count += targets.numel()
        return [Term("nats_a_label", total, float(count))]

    @torch.no_grad()
    def finish(self, module: nn.Module) -> dict[str, Any]:
        """Measure held-out frames against the labels' shares, and write the encoder."""
        assert isinstance(module, PerceptualEncoder)
        run = self.run
        samples = load_fixed(run.data, run.val_split, run.val_samples)
        pairs = [self._pair(run.val_split, s) for s in samples if s.info.truth_nbytes]
        targets = torch.cat([labels for _, labels in pairs]).cpu()
        logits = torch.cat([module(pixels) for pixels, _ in pairs]).cpu()
        entropy = functional.binary_cross_entropy_with_logits
        shares = targets.mean(0).clamp(1e-4, 1 - 1e-4)
        base = functional.binary_cross_entropy(shares.expand_as(targets), targets)
        hit = (logits > 0) == (targets > 0)
        found = {
            "heldout_nats_a_label": float(entropy(logits, targets)),
            "base_rate_nats_a_label": float(base),
            "accuracy": float(hit.float().mean()),
            "majority_accuracy": float(torch.maximum(shares, 1 - shares).mean()),
            "labels": len(module.config.outputs),
            "frames": len(targets),
        }
        loss = {"loss": found["heldout_nats_a_label"]}
        if not self.mesh.is_main:
            return found | loss
        about = {
            "trained": {
                "run": self.folder.name,
                "data": "/".join(Path(run.data.root).parts[-2:]),
                "data_digest": index_digest(self._infos),
                "steps": run.steps,
            },
            "validation": found,
        }
        digest = save_perceptual(module, self.folder / ENCODER, about)
        return found | loss | {"digest": digest}


def train_perceptual(
    run: PerceptualRun, folder: Path, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train to the end and write ``folder/encoder``; return the result, None when stopped."""
    mesh = start_mesh(run.parallel)
    loader = Loader(run.data, run.data.train_split, _CELL, run.seed, mesh.rank, mesh.world)
    try:
        task = PerceptualTask(run, folder, mesh, loader.infos)
        training = SmallTraining(
            task.encoder,
            loader,
            task.prepare,
            task.loss,
            run.optim,
            run.steps,
            folder,
            finish=task.finish,
            checkpoint=run.checkpoint,
            log_every=run.log_every,
            mesh=mesh,
        )
        return training.run(should_stop)
    finally:
        loader.close()
        stop_mesh(mesh)


def train_here(run: PerceptualRun, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Train a frozen run in this process and say how good it is; return False when stopped."""
    result = train_perceptual(run, folder, should_stop)
    if result is None:
        return False
    print(
        f"held out: {result['heldout_nats_a_label']:.4f} nats a label "
        f"(labels' shares alone {result['base_rate_nats_a_label']:.4f}), "
        f"{result['accuracy']:.1%} right (majority {result['majority_accuracy']:.1%})"
    )
    return True
