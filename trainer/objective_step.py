"""One optimizer step's micro-batches: packs with the noise, times and dropout their keys decide."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.batch import Pack
from models.count import count_flops
from models.flow import flow_errors, logit_normal_times
from models.pack import TokenPack
from trainer.collate import Collator, Encoded
from trainer.config import RunConfig
from trainer.parallel.engine import Engine
from trainer.rng import normal, uniform


@dataclass(frozen=True)
class MicroBatch:
    """A pack ready for the model: noise x_0 (S, V), one time a segment t (M,), and its counts."""

    pack: TokenPack
    x_0: Tensor
    t: Tensor
    tokens: int
    values: int
    flops: int


def prepare(pack: Pack, run: RunConfig, collator: Collator, device: torch.device) -> MicroBatch:
    """Encode a pack and draw its noise; equal lengths are neighbours so that attention batches."""
    encoded = sorted((collator.encode(s) for s in pack.samples), key=lambda e: len(e.tokens))
    seed = run.seed
    visits = [e.sample.visit for e in encoded]
    keep = [
        uniform(seed, "caption", e.key, v) >= run.objective.caption_dropout
        for e, v in zip(encoded, visits, strict=True)
    ]
    pad_to = run.data.pack_tokens if device.type == "cuda" else None
    tokens = collator.pack(encoded, keep, pad_to)
    x_0 = torch.zeros_like(tokens.latent)
    noise = [
        normal(tuple(e.tokens.shape), seed, "noise", e.key, v)
        for e, v in zip(encoded, visits, strict=True)
    ]
    x_0[: tokens.num_tokens] = torch.cat(noise)
    captions = [max(length, 1) for length in tokens.caption_lengths]
    return MicroBatch(
        pack=tokens.to(device),
        x_0=x_0.to(device),
        t=_times(run, encoded, visits).to(device),
        tokens=tokens.num_tokens,
        values=int(tokens.valid.sum()),
        flops=count_flops(run.model, tokens.lengths, captions).total,
    )


def _times(run: RunConfig, encoded: list[Encoded], visits: list[int]) -> Tensor:
    draws = [normal((1,), run.seed, "time", e.key, v) for e, v in zip(encoded, visits, strict=True)]
    lengths = torch.tensor([float(len(e.tokens)) for e in encoded])
    return logit_normal_times(torch.cat(draws), lengths, run.objective.shift_tokens)


def accumulate(engine: Engine, batches: list[MicroBatch], denominator: float) -> float:
    """Run forward and backward over this rank's micro-batches; return its summed error."""
    total = 0.0
    for batch in batches:
        error = flow_errors(engine, batch.pack, batch.x_0, batch.t).sum(dtype=torch.float64)
        engine.backward(error.to(torch.float32), denominator)
        total += float(error.detach())
    return total
