"""Caption preference: whether a clip's loss is lower under its own caption than under another's.

It asks the model without a sampler: drawn clips that miss their prompts while the loss knows them
are the sampler's failure, and the guidance's.
"""

from dataclasses import replace

import numpy as np
import torch

from data.worlds.tiny.film import FPS
from models.dit.embed import patchify
from models.network import Network
from models.objective import build_objective
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator
from trainer.probes.tasks.known import Known
from trainer.probes.tasks.reading import Array
from trainer.rng import normal

STRATA = 8  # of t, all of which weigh alike
AT_ONCE = 8  # clips of one pass


def preferences(run: RunConfig, model: Network, clips: list[Known], seed: int) -> Array:
    """Return 1 for each clip whose loss is lower under its own caption, 0 where it is higher.

    The other caption is that of the next clip whose words differ; noise and times are the same.
    """
    collator = Collator(run.codec, run.text)
    objective = build_objective(run.objective)
    losses = []
    for start in range(0, len(clips), AT_ONCE):
        items, noises, times = [], [], []
        for number in range(start, min(start + AT_ONCE, len(clips))):
            clip = clips[number]
            latent = collator.codec.encode(torch.from_numpy(clip.frames)).float()
            blank = collator.blank(clip.frames.shape[:3], FPS, clip.prompt)
            item = replace(blank, tokens=patchify(latent))
            other = collator.caption(other_prompt(clips, number))
            spread = objective.strata(STRATA, 0.5)
            for stratum in range(STRATA):
                noise = normal(tuple(item.tokens.shape), seed, "preference", str(number), stratum)
                for caption in (item.caption, other):
                    items.append(replace(item, caption=caption))
                    noises.append(noise)
                    times.append(spread[stratum])
        pack = collator.pack(items, [CaptionUse.dense] * len(items))
        t = pack.times(pack.of_spans(torch.stack(times).float()))
        with torch.no_grad():
            errors = objective.measured(model, pack, torch.cat(noises), t)
        sums = torch.zeros(len(items), dtype=torch.float64)
        sums.index_add_(0, pack.segment, errors.double())
        losses.append(sums.view(-1, STRATA, 2).sum(1).numpy())
    own, others = np.concatenate(losses).T
    lower: Array = np.where(own == others, 0.5, own < others)
    return lower


def other_prompt(clips: list[Known], number: int) -> str:
    """Return the next clip's caption that differs. Raises ValueError where all are the same."""
    own = clips[number].prompt
    for clip in clips[number + 1 :] + clips[:number]:
        if clip.prompt != own:
            return clip.prompt
    raise ValueError(f"clips={len(clips)}: all have one caption. Ask about more clips.")
