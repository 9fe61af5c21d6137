"""Train a video compression network.

usage: kinescale train experiment=vae_tiny data.root=DATASET [key=value ...]
       kinescale train --run FOLDER      start or resume a frozen run

The same command resumes a run, a finished one is not repeated. The network, with the statistics of
its latents, is in RUN/codec: use it with codec.kind=vae codec.path=RUN/codec.
"""

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.loading.loader import Loader, index_digest, load_fixed
from models.codec.codec import VaeCodec
from models.codec.vae import Vae
from models.config import CodecConfig, CodecKind
from trainer.checkpoint.read import load_latest
from trainer.codec.build import load_vae, save_vae
from trainer.codec.files import resolve, write_card
from trainer.parallel.mesh import Mesh, start_mesh, stop_mesh
from trainer.rng import generator
from trainer.small import SmallTraining
from trainer.vae.config import VaeRun
from trainer.vae.losses import Networks, VaeLoss
from trainer.vae.lpips import load_lpips
from trainer.vae.measure import best_plain, codec_coder, judge_all, summary
from trainer.vae.perceptual_card import read_perceptual_card
from trainer.vae.perceptual_files import load_perceptual
from trainer.vae.start import set_low_pass
from trainer.vae.statistics import measure_latents

CODEC = "codec"


def train_here(run: VaeRun, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Train a frozen run in this process and say how good it is; return False when stopped."""
    result = train_vae(run, folder, should_stop)
    if result is None:
        return False
    for split, found in result["validation"].items():
        shown = "  ".join(f"{name} {q['psnr']:.2f} dB" for name, q in found.items())
        print(f"{split}: {shown}", file=sys.stderr)
    return True


def train_vae(run: VaeRun, folder: Path, should_stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Train to the end and write ``folder/codec``; return the result, None when stopped."""
    mesh = start_mesh(run.parallel)
    loader = Loader(run.data, run.data.train_split, run.cell, run.seed, mesh.rank, mesh.world)
    try:
        if any(info.media == "latent" for info in loader.infos):
            raise ValueError(
                f"data.root={run.data.root}: holds latents, which cannot train what makes them. "
                "Use the clips, for example datasets/demo/video."
            )
        task = VaeTask(run, folder, mesh, loader)
        training = SmallTraining(
            task.networks,
            loader,
            task.loss.prepare,
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


class VaeTask:
    """What the small loop needs to know: the networks as they start, their loss, and the end."""

    def __init__(self, run: VaeRun, folder: Path, mesh: Mesh, loader: Loader) -> None:
        self.run, self.folder, self.mesh, self._loader = run, folder, mesh, loader
        self.networks = Networks(run)
        word = int(generator(run.seed, "init", "", 0).integers(0, 2**62))
        self.networks.reset_parameters(torch.Generator().manual_seed(word))
        if not (folder / "checkpoints" / "latest").exists():
            self._start()
        self.networks.to(mesh.device)
        self._eyes: dict[str, Any] = {}
        perceptual = lpips = None
        if run.loss.perceptual:
            place = resolve(run.loss.perceptual_path)
            perceptual = load_perceptual(place).to(mesh.device)
            self._eyes = {"perceptual_digest": read_perceptual_card(place)["digest"]}
        if run.loss.lpips:
            lpips = load_lpips(Path(run.loss.lpips_path)).to(mesh.device)
        self.loss = VaeLoss(run, perceptual, lpips, mesh.device)

    def _start(self) -> None:
        """Begin from another network's weights, or with the linear path of the training clips."""
        run, vae = self.run, self.networks.vae
        if run.start:
            load_start(vae, run.start)
        elif run.components:
            set_low_pass(vae, run.data, run.components)

    def finish(self, module: nn.Module) -> dict[str, Any]:
        """Write weights and statistics, and measure held-out clips; the main process does it."""
        assert isinstance(module, Networks)
        if not self.mesh.is_main:
            return {}
        started = time.monotonic()
        place = self.folder / CODEC
        digest = save_vae(module.vae, place)
        run, vae = self.run, copy.deepcopy(module.vae)
        config = CodecConfig(
            kind=CodecKind.vae,
            stride=run.vae.stride,
            channels=run.vae.channels,
            mean=[0.0] * run.vae.channels,
            spread=[1.0] * run.vae.channels,
            path=str(place),
            digest=digest,
        )
        statistics = measure_latents(
            VaeCodec(config, vae), run.data, run.validation.statistics_samples
        )
        for key, value in statistics.items():
            setattr(config, key, value)
        codec = VaeCodec(config, vae)
        validation = {split: self._validate(codec, split) for split in run.validation.splits}
        card = {
            "kind": CodecKind.vae.value,
            "network": asdict(run.vae),
            "stride": config.stride,
            "channels": config.channels,
            **statistics,
            "digest": digest,
            **self._eyes,
            "trained": {
                "run": self.folder.name,
                "data": "/".join(Path(run.data.root).parts[-2:]),
                "mixture": [asdict(member) for member in run.data.mixture],
                "data_digest": index_digest(self._loader.infos),
                "start": Path(run.start).name,
                "steps": run.steps,
                "loss": asdict(run.loss),
            },
            "validation": validation,
        }
        write_card(place, card)
        seconds = round(time.monotonic() - started, 1)
        measured = headline([split["vae"] for split in validation.values()])
        return measured | {
            "validation": validation, "digest": digest, "validation_seconds": seconds,
        }  # fmt: skip

    def _validate(self, codec: VaeCodec, split: str) -> dict[str, dict[str, float]]:
        """Return what the network and the best plain downsampling make of a split."""
        samples = load_fixed(self.run.data, split, self.run.validation.samples)
        ours = judge_all(codec_coder(codec), samples)
        plain = [
            best_plain(sample.frames, quality.values)[1]
            for sample, quality in zip(samples, ours, strict=True)
            if sample.frames is not None
        ]
        return {"vae": summary(ours), "plain": summary(plain)}


def headline(splits: list[dict[str, float]]) -> dict[str, float]:
    """Return the quality on the first split, and its error as the loss; nothing where none is.

    loss: squared error of pixels of peak 1, geometric mean over clips, 10^(-PSNR / 10).
    """
    if not splits:
        return {}
    shown = {key: splits[0][key] for key in ("psnr", "ssim", "flicker", "values_per_pixel")}
    return {"loss": 10 ** (-shown["psnr"] / 10), **shown}


def load_start(vae: Vae, start: str) -> None:
    """Copy the weights of a codec's folder, or the averages of a run's newest checkpoint."""
    folder = resolve(start)
    if not (folder / "checkpoints").is_dir():
        other = load_vae(folder)
        if other.config != vae.config:
            raise ValueError(
                f"start={start}: holds a network of another shape, {other.config}. "
                "Use the same vae.* keys."
            )
        vae.load_state_dict(other.state_dict())
        return
    loaded = load_latest(folder / "checkpoints")
    if loaded is None:
        raise ValueError(f"start={start}: has no good checkpoint. Train it first.")
    for name, param in vae.named_parameters():
        param.data.copy_(loaded.tensor("ema", f"vae.{name}", tuple(param.shape)))
