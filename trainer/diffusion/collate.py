"""From decoded samples, and from clips to be made, to the flat buffer a model sees."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.loading.batch import Sample
from models.codec.codec import Codec, valid_values
from models.config import CodecConfig, TextConfig
from models.dit.embed import patchify, position_features, token_positions
from models.pack import TokenPack
from models.spans import SegmentSpans, lay_spans, whole
from models.text import TextEncoder, build_text_encoder
from trainer.codec.build import load_codec
from trainer.config import CaptionUse

# Encoded captions that are kept: 75 MB of MiniLM's states at 48 tokens. Data sets have millions.
CAPTIONS = 1024


@dataclass(frozen=True)
class PackItem:
    """What the network needs of a clip, whether it is stored or only asked for.

    tokens: its latent in patches (S, V), zeros where it is to be made.
    size: of the latent (f, h, w). source: frames, height and width of the clip itself, in pixels.
    fps: frames a second, 0 for an image.
    caption: states of the dense description (L, D); ``short_caption``, those of the short one,
        equals it where there is none.
    spans: which tokens share a time, and which are given clean; None is one time for all of them.

    Its key and visit are no part of it: they seed draws, and are known where those are made.
    """

    tokens: Float[Tensor, "S V"]
    size: tuple[int, int, int]
    source: tuple[int, int, int]
    fps: float
    caption: Float[Tensor, "L D"]
    short_caption: Float[Tensor, "K D"]
    spans: SegmentSpans | None = None

    def caption_for(self, use: CaptionUse) -> Float[Tensor, "L D"]:
        """Return the states that a sample is trained with; none for a dropped caption."""
        if use is CaptionUse.dropped:
            return self.caption[:0]
        return self.caption if use is CaptionUse.dense else self.short_caption


class Collator:
    """Encode samples (latents pass through) and lay them side by side in a pack.

    caption: encodes a caption into states (L, D); the latest are kept. device: where the networks
    of codec and text encoder compute, by default the CPU.
    """

    def __init__(
        self, codec: CodecConfig, text: TextConfig, device: torch.device | None = None
    ) -> None:
        self._codec, self._text, self._device = codec, text, device
        self._encoder: TextEncoder | None = None
        self.caption = lru_cache(maxsize=CAPTIONS)(self._encode_caption)
        self._geometry = lru_cache(maxsize=512)(self._geometry_of)

    @cached_property
    def codec(self) -> Codec:
        """The codec; its weights are loaded when pixels are first met, latents need none."""
        return load_codec(self._codec, self._device)

    def encode(self, sample: Sample) -> PackItem:
        """Turn one stored sample into tokens and caption states."""
        if sample.latent is not None:
            latent = sample.latent.to(torch.float32)
        else:
            assert sample.frames is not None
            latent = self.codec.encode(sample.frames)
        caption, short = sample.caption_states, sample.short_caption_states
        if caption is None:
            caption = self.caption(sample.info.caption)
        if short is None:
            text = sample.info.short_caption
            short = self.caption(text) if text else caption
        _, f, h, w = latent.shape
        info = sample.info
        return PackItem(
            tokens=patchify(latent),
            size=(f, h, w),
            source=(info.num_frames, info.height, info.width),
            fps=info.fps,
            caption=caption.float(),
            short_caption=short.float(),
        )

    def blank(self, source: tuple[int, int, int], fps: float, prompt: str) -> PackItem:
        """Return the item of a clip to be made: a size, a prompt, and tokens of zeros.

        source: frames, height and width in pixels. Raises ValueError on frames that the codec
        cannot make.
        """
        f, h, w = self._codec.latent_shape(*source)
        tokens = patchify(torch.zeros(self._codec.channels, f, h, w))
        caption = self.caption(prompt)
        return PackItem(tokens, (f, h, w), source, fps if source[0] > 1 else 0.0, caption, caption)

    def filler(self) -> PackItem:
        """Return the smallest item, for a pack that has lost all of its own."""
        size = self._codec.latent_shape(1, 1, 1)
        tokens = patchify(torch.zeros(self._codec.channels, *size))
        nothing = torch.zeros(0, self._text.width)
        return PackItem(tokens, size, (1, 1, 1), 0.0, nothing, nothing)

    def _encode_caption(self, text: str) -> Float[Tensor, "L D"]:
        if self._encoder is None:
            self._encoder = build_text_encoder(self._text, self._device)
        return self._encoder.encode([text])[0].clone()  # no view: it may be kept for long

    def pack(
        self,
        items: list[PackItem],
        captions: list[CaptionUse],
        pad_to: int | None = None,
        caption_rows: int = 0,
    ) -> TokenPack:
        """Lay items side by side; ``pad_to`` rows gives static shapes for accelerators.

        caption_rows: to which captions are padded where they are fewer, see ``data.caption_rows``.
        """
        geometry = [self._geometry(item.size, *item.source) for item in items]
        lengths = [len(item.tokens) for item in items]
        states = [item.caption_for(use) for item, use in zip(items, captions, strict=True)]
        segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        rows = sum(max(len(state), 1) for state in states)
        states.append(torch.zeros(max(0, caption_rows - rows), states[0].shape[1]))
        pack = TokenPack(
            latent=torch.cat([item.tokens for item in items]),
            valid=torch.cat([valid for valid, _, _ in geometry]),
            positions=torch.cat([positions for _, positions, _ in geometry]),
            place=torch.cat([place for _, _, place in geometry]),
            segment=segment,
            lengths=lengths,
            fps=torch.tensor([float(item.fps) for item in items]),
            caption=torch.cat(states),
            caption_lengths=[len(c) for c in states[:-1]],
        )
        if any(item.spans is not None for item in items):
            pack = _with_spans(pack, items)
        return pack if pad_to in (None, len(pack.latent)) else pad_pack(pack, pad_to)

    def _geometry_of(
        self, size: tuple[int, int, int], num_frames: int, height: int, width: int
    ) -> tuple[Bool[Tensor, "S V"], Int[Tensor, "S 3"], Float[Tensor, "S P"]]:
        """Return what depends on a sample's size alone: valid mask, positions, place."""
        valid = patchify(valid_values(self._codec, num_frames, height, width).to(torch.float32)) > 0
        positions = token_positions(*size)
        extent = (self._codec.stride[0] + 1, size[1] // 2, size[2] // 2)
        return valid, positions, position_features(positions, extent)


def _with_spans(pack: TokenPack, items: list[PackItem]) -> TokenPack:
    """Return a pack whose items have spans; tokens that are given carry no loss."""
    spans = [item.spans or whole(len(item.tokens)) for item in items]
    given = torch.cat([part.given_rows for part in spans])
    return replace(pack, valid=pack.valid & ~given.unsqueeze(-1), spans=lay_spans(spans))


def pad_pack(pack: TokenPack, rows: int) -> TokenPack:
    """Append padding rows up to ``rows``; they carry no loss and nobody attends to them."""
    extra = rows - len(pack.latent)
    if extra < 0:
        raise ValueError(
            f"data.pack_tokens={rows}: holds {len(pack.latent)} tokens. Raise data.pack_tokens."
        )

    def grow(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(extra, *tensor.shape[1:])])

    fields = dict(vars(pack))
    for name in ("latent", "valid", "positions", "place", "periods"):
        fields[name] = None if fields[name] is None else grow(fields[name])
    last = pack.segment[-1:].expand(extra)
    fields["segment"] = torch.cat([pack.segment, last])
    fields["spans"] = None if pack.spans is None else pack.spans.padded(extra)
    return TokenPack(**fields)
