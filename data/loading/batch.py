"""What the loader hands to the trainer: samples in packs, packs in a step."""

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from data.dataset.sample import SampleInfo


@dataclass
class Sample:
    """One visit to one sample, either as frames or as a latent.

    info: the sample's index entry (sizes in source frames and pixels).
    visit: the epoch this visit belongs to; with ``info.key`` it names the random draws.
    frames: RGB frames, 0..255, or None for latents.
    latent: latents as stored, in the dtype of the shard, or None for clips.
    caption_states: encoded tokens of the dense caption, or None where the shard holds only text.
    short_caption_states: the same of the short caption; None also where there is none.
    decoder: what read the payload: decord, pyav, pillow or safetensors.
    """

    info: SampleInfo
    visit: int
    frames: UInt8[Tensor, "F H W 3"] | None
    latent: Float[Tensor, "C F H W"] | None
    caption_states: Float[Tensor, "L D"] | None
    decoder: str
    short_caption_states: Float[Tensor, "L D"] | None = None


@dataclass
class Pack:
    """Samples that share one flat buffer of ``budget`` video tokens; the rest of it is padding.

    ``dropped`` lists (key, reason) of planned samples that could not be read. ``number`` is the
    pack's place in the plan of its step.
    """

    samples: list[Sample]
    budget: int
    dropped: list[tuple[str, str]]
    number: int = 0


@dataclass
class Step:
    """One optimizer step.

    index: 0-based number of the step since the start of the run.
    plan: ALL packs of all ranks as (sample, visit), longest first, known before anything is read.
    packs: this rank's packs, decoded; every rank has the same number of them.
    """

    index: int
    plan: list[list[tuple[SampleInfo, int]]]
    packs: list[Pack]

    def lost(self) -> list[bool]:
        """Tell of each planned sample, pack by pack, whether this rank failed to read it."""
        lost = [[False] * len(pack) for pack in self.plan]
        for pack in self.packs:
            read = {(sample.info.key, sample.visit) for sample in pack.samples}
            planned = self.plan[pack.number]
            lost[pack.number] = [(info.key, visit) not in read for info, visit in planned]
        return [sample for pack in lost for sample in pack]
