"""The losses of the compression network, as terms whose sums run over all processes."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from data.loading.batch import Sample, Step
from models.codec.codec import pad_edges, to_pixels
from models.codec.discriminator import Discriminator, discriminator_loss, generator_loss
from models.codec.lpips import Lpips
from models.codec.perceptual import PerceptualEncoder, perceptual_distance
from models.codec.vae import Vae
from models.config import CodecConfig
from trainer.rng import generator, normal
from trainer.small import Term
from trainer.vae.config import VaeRun


@dataclass(frozen=True)
class Group:
    """Clips of one size.

    pixels: padded to the grid, (B, F, H, W, 3) in [-1, 1]; height, width: of the source.
    noise: of the posterior, (B, C, f, h, w). frames: of each clip, those the eyes compare (B, K).
    """

    pixels: Tensor
    height: int
    width: int
    noise: Tensor
    frames: Tensor


@dataclass(frozen=True)
class VaeBatch:
    """This process's clips of a step, by size; position: share of the run that lies behind."""

    groups: list[Group]
    position: float


class Networks(nn.Module):
    """What is trained together: the network, and a discriminator where there is one."""

    def __init__(self, run: VaeRun) -> None:
        super().__init__()
        self.vae = Vae(run.vae)
        self.discriminator = Discriminator() if run.loss.adversarial else None

    def reset_parameters(self, random: torch.Generator) -> None:
        """Draw initial values."""
        self.vae.reset_parameters(random)
        if self.discriminator is not None:
            self.discriminator.reset_parameters(random)


class VaeLoss:
    """The batches of a run, and the terms of their loss.

    perceptual, lpips: frozen networks, or None where their weight is 0.
    """

    def __init__(
        self,
        run: VaeRun,
        perceptual: PerceptualEncoder | None,
        lpips: Lpips | None,
        device: torch.device,
    ) -> None:
        self._run, self._device = run, device
        self._perceptual, self._lpips = perceptual, lpips
        self._codec = CodecConfig(stride=run.vae.stride, channels=run.vae.channels)

    def prepare(self, step: Step) -> VaeBatch:
        """Group a step's clips by size; equal sizes go through the network together."""
        found: dict[tuple[int, ...], list[Sample]] = {}
        for pack in step.packs:
            for sample in pack.samples:
                assert sample.frames is not None, "latents cannot train what makes them"
                found.setdefault(tuple(sample.frames.shape[:3]), []).append(sample)
        groups = [self._group(size, samples) for size, samples in sorted(found.items())]
        return VaeBatch(groups, step.index / self._run.steps)

    def _group(self, size: tuple[int, ...], samples: list[Sample]) -> Group:
        num_frames, height, width = size
        f, h, w = self._codec.latent_shape(num_frames, height, width)
        _, rows, columns = self._codec.stride
        seed, shape = self._run.seed, (self._codec.channels, f, h, w)
        pixels, noise, frames = [], [], []
        count = min(self._run.loss.perceptual_frames, num_frames)
        for sample in samples:
            assert sample.frames is not None
            key, visit = sample.info.key, sample.visit
            pixels.append(pad_edges(to_pixels(sample.frames), h * rows, w * columns))
            noise.append(normal(shape, seed, "posterior", key, visit))
            order = generator(seed, "eyes", key, visit).random(num_frames).argsort()
            frames.append(torch.from_numpy(order[:count].copy()))
        stacks = (torch.stack(part).to(self._device) for part in (pixels, noise, frames))
        stacked, noises, chosen = stacks
        return Group(stacked, height, width, noises, chosen)

    def __call__(self, networks: nn.Module, batch: VaeBatch) -> list[Term]:
        """Return the terms; every one is there on every process, with zeros where it has none."""
        assert isinstance(networks, Networks)
        weights = self._run.loss
        sums = _Sums(self._device)
        adversarial = weights.adversarial * (batch.position >= weights.adversarial_start)
        for group in batch.groups:
            self._add(sums, networks, group, adversarial > 0)
        terms = [
            sums.term("l1", 1.0),
            sums.term("squared", weights.squared),
            sums.term("motion", weights.motion),
            sums.term("kl", weights.kl),
        ]
        if self._perceptual is not None:
            terms.append(sums.term("perceptual", weights.perceptual))
        if self._lpips is not None:
            terms.append(sums.term("lpips", weights.lpips))
        if networks.discriminator is not None:
            terms.append(sums.term("adversarial", adversarial))
            terms.append(sums.term("discriminator", float(adversarial > 0)))
        return terms

    def _add(self, sums: "_Sums", networks: Networks, group: Group, judged: bool) -> None:
        mean, log_variance = networks.vae.posterior(group.pixels)
        latent = mean + torch.exp(0.5 * log_variance) * group.noise
        made = networks.vae.decode(latent)[:, :, : group.height, : group.width]
        real = group.pixels[:, :, : group.height, : group.width]
        error = made - real
        sums.add("l1", error.abs().sum(), error.numel())
        sums.add("squared", error.square().sum(), error.numel())
        change = error[:, 1:] - error[:, :-1]  # of the made clip's change from the real one's
        sums.add("motion", change.abs().sum(), change.numel())
        _, rows, columns = self._codec.stride
        seen = (slice(ceil(group.height / rows)), slice(ceil(group.width / columns)))
        kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)
        kl = kl[:, :, :, *seen]
        sums.add("kl", kl.sum(), kl.numel())
        if self._perceptual is not None or self._lpips is not None:
            clips = torch.arange(len(made), device=made.device)[:, None]
            ours, theirs = (clip[clips, group.frames].flatten(0, 1) for clip in (made, real))
            if self._perceptual is not None:
                distances = perceptual_distance(self._perceptual, ours, theirs)
                sums.add("perceptual", distances.sum(), len(distances))
            if self._lpips is not None:
                distances = self._lpips(ours, theirs)
                sums.add("lpips", distances.sum(), len(distances))
        if networks.discriminator is not None and judged:
            loss, count = discriminator_loss(networks.discriminator, made, real)
            sums.add("discriminator", loss, count)
            sums.add("adversarial", generator_loss(networks.discriminator, made), count // 2)


class _Sums:
    """Numerators and denominators by name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._found: dict[str, tuple[Tensor, float]] = {}

    def add(self, name: str, numerator: Tensor, denominator: float) -> None:
        before, count = self._found.get(name, (torch.zeros((), device=self._device), 0.0))
        self._found[name] = before + numerator, count + denominator

    def term(self, name: str, weight: float) -> Term:
        numerator, count = self._found.get(name, (torch.zeros((), device=self._device), 0.0))
        return Term(name, numerator, count, weight)
