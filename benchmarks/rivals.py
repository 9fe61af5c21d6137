"""Other ways to train on the same clips: a plain DiT on padded batches, and diffusers' Wan."""

from collections.abc import Callable
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn

from benchmarks.packs import Sample, Work, training_step
from benchmarks.plain_dit import PaddedBatch, PlainDiT, pad
from models.config import ModelConfig
from models.count import count_params
from models.dit.embed import unpatchify
from models.dit.model import DiT


def plain_loss(model: nn.Module, sample: Sample) -> Tensor:
    """Return the same number from a padded batch."""
    return model(pad(sample.pack, sample.x_0, sample.t)).sum() / sample.pack.valid.sum()


def plain_steps(ours: DiT, samples: list[Sample]) -> dict[str, Work]:
    """Return the plain step on each pack's clips as one batch, and as two batches of like sizes."""
    model = PlainDiT(ours.config)
    model.load_state_dict(ours.state_dict())
    useful = sum(sample.pack.num_tokens for sample in samples)
    ways = {"one batch a pack": [pad(s.pack, s.x_0, s.t) for s in samples]}
    ways["short and long apart"] = [
        pad(s.pack, s.x_0, s.t, part) for s in samples for part in short_and_long(s.pack.lengths)
    ]
    steps = {}
    for name, batches in ways.items():
        padding = 1 - useful / sum(batch.mask.numel() for batch in batches)
        title = f"plain DiT, {name} ({padding:.0%} padding)"
        steps[title] = training_step(model, [partial(_plain_batch_loss, model, b) for b in batches])
    return steps


def _plain_batch_loss(model: PlainDiT, batch: PaddedBatch) -> Tensor:
    return model(batch).sum() / batch.valid.sum()


def short_and_long(lengths: list[int]) -> list[list[int]]:
    """Cut ascending lengths in two where the padding is least."""
    count = len(lengths)
    cut = min(range(count), key=lambda i: i * lengths[i - 1] + (count - i) * lengths[-1])
    return [part for part in (list(range(cut)), list(range(cut, count))) if part]


def wan_steps(config: ModelConfig, samples: list[Sample]) -> dict[str, Work]:
    """Return the step of diffusers' Wan transformer, clip by clip and equal sizes batched.

    Raises ImportError without diffusers, ValueError where its parameters are not ours.
    """
    from diffusers import WanTransformer3DModel, __version__

    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.values_per_token // 4,
        out_channels=config.values_per_token // 4,
        text_dim=config.text_width,
        freq_dim=2 * config.time_features,
        ffn_dim=config.mlp_ratio * config.width,
        num_layers=config.depth,
        rope_max_seq_len=64,
    )
    size, own = sum(p.numel() for p in model.parameters()), count_params(config).total
    if abs(size / own - 1) > 0.05:
        raise ValueError(f"Wan has {size} parameters, ours {own}: more than 5 % apart")
    ways: dict[str, list[Callable[[], Tensor]]] = {"clip by clip": [], "equal sizes batched": []}
    for sample in samples:
        clips = list(range(len(sample.grids)))
        for i in clips:
            ways["clip by clip"].append(partial(_wan_loss, model, *wan_batch(sample, [i])))
        for _, group in groupby(clips, key=sample.grids.__getitem__):
            batch = wan_batch(sample, list(group))
            ways["equal sizes batched"].append(partial(_wan_loss, model, *batch))
    return {
        f"diffusers {__version__} Wan, {size / own - 1:+.1%} params, {name}": training_step(
            model, losses
        )
        for name, losses in ways.items()
    }


def wan_batch(sample: Sample, clips: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return latents, noise (B, C, F, H, W), times and captions of clips of one size.

    No caption is one token of zeros; captions are padded to the batch's longest.
    """
    pack = sample.pack
    latents, noise, captions = (
        torch.split(rows, lengths)
        for rows, lengths in (
            (pack.latent, pack.lengths),
            (sample.x_0, pack.lengths),
            (pack.caption, pack.caption_lengths),
        )
    )
    f, h, w = sample.grids[clips[0]]
    null = pack.caption.new_zeros(1, pack.caption.shape[1])
    states = [captions[i] if len(captions[i]) else null for i in clips]
    return (
        torch.stack([unpatchify(latents[i], f, 2 * h, 2 * w) for i in clips]),
        torch.stack([unpatchify(noise[i], f, 2 * h, 2 * w) for i in clips]),
        sample.t[clips],
        nn.utils.rnn.pad_sequence(states, batch_first=True),
    )


def _wan_loss(model: nn.Module, x_1: Tensor, x_0: Tensor, t: Tensor, caption: Tensor) -> Tensor:
    x_t = torch.lerp(x_0, x_1, t.view(-1, 1, 1, 1, 1))
    (velocity,) = model(x_t, 1000 * (1 - t), caption, return_dict=False)
    return (velocity - (x_1 - x_0)).square().mean()
