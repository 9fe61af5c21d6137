"""What turns pixels into latents and back: the protocol, and the trained network behind it.

The network codes in tiles with a halo as wide as its receptive field, and in chunks of time through
its causal memory, so what it needs of memory does not grow with the clip.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Protocol

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from models.codec.pixels import valid_pixels
from models.codec.vae import TAPS, Memory, Vae, lead_in, reach
from models.codec.wavelet import valid_cells as wavelet_valid
from models.config import CODEC_CELLS, CodecConfig, CodecKind

# Side of a tile in cells: with halos of 6 cells, one of 64 computes 1.4 times what it keeps.
TILE = 64


class Codec(Protocol):
    """Pixels to latents and back for clips and images of any size."""

    config: CodecConfig

    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode a clip of 1 + k * stride frames; sizes off the grid are edge-padded."""

    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode latents, trimmed to ``height`` x ``width`` pixels."""

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the latent values that carry loss."""


def valid_values(
    config: CodecConfig, num_frames: int, height: int, width: int
) -> Bool[Tensor, "C f h w"]:
    """Mark the latent values that see more than edge padding; needs no weights."""
    if config.kind is CodecKind.wavelet:
        return wavelet_valid(config, num_frames, height, width)
    if config.kind is CodecKind.pixels:
        return valid_pixels(config, num_frames, height, width)
    f, h, w = config.latent_shape(num_frames, height, width)
    mask = torch.zeros(config.channels, f, h, w, dtype=torch.bool)
    _, rows, columns = config.stride
    mask[:, :, : -(-height // rows), : -(-width // columns)] = True
    return mask


def to_pixels(frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "F H W 3"]:
    """Map 0..255 to [-1, 1]."""
    return frames.to(torch.float32) / 127.5 - 1.0


def to_frames(pixels: Float[Tensor, "F H W 3"]) -> UInt8[Tensor, "F H W 3"]:
    """Map [-1, 1] to 0..255, rounded."""
    return ((pixels + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pad_edges(
    pixels: Float[Tensor, "F H W 3"], height: int, width: int
) -> Float[Tensor, "F H W 3"]:
    """Repeat the last row and column until a size is reached."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    planes = pixels.permute(3, 0, 1, 2)
    grown = (0, width - planes.shape[3], 0, height - planes.shape[2])
    return pad(planes, grown, mode="replicate").permute(1, 2, 3, 0)


@dataclass(frozen=True)
class Tile:
    """A rectangle of cells: what is kept of it, and where that lies in what is computed.

    rows, columns: the kept cells; seen_rows, seen_columns: those and the halo, cut at the borders.
    """

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    @property
    def inner(self) -> tuple[slice, slice]:
        """The kept cells, counted from the seen ones."""
        top, left = self.seen_rows.start, self.seen_columns.start
        rows = slice(self.rows.start - top, self.rows.stop - top)
        return rows, slice(self.columns.start - left, self.columns.stop - left)


def tiles(height: int, width: int, side: int, halo: int) -> list[Tile]:
    """Cut a grid of cells into tiles of about equal sides of at most ``side``."""

    def cuts(size: int) -> list[tuple[slice, slice]]:
        count = -(-size // side)
        edges = [size * i // count for i in range(count + 1)]
        return [
            (slice(a, b), slice(max(a - halo, 0), min(b + halo, size))) for a, b in pairwise(edges)
        ]

    pairs = product(cuts(height), cuts(width))
    return [Tile(rows, columns, seen, also) for (rows, seen), (columns, also) in pairs]


class VaeCodec:
    """The trained network as a codec.

    tile: side of a spatial tile, in cells. cells: computed in one pass, which decides how many
    latent frames a chunk holds.
    """

    def __init__(
        self, config: CodecConfig, vae: Vae, tile: int = TILE, cells: int = CODEC_CELLS
    ) -> None:
        self.config, self.vae = config, vae.eval().requires_grad_(False)
        self._tile, self._cells = tile, cells
        self._reach = reach(vae.config)
        self._mean = torch.tensor(config.mean).view(-1, 1, 1, 1)

    def encode(self, frames: UInt8[Tensor, "F H W 3"]) -> Float[Tensor, "C f h w"]:
        """Encode a clip; see :class:`Codec`."""
        self.config.latent_shape(*frames.shape[:3])  # refuses a length that is not 1 + k * stride
        return torch.cat(list(self.encode_chunks([frames])), dim=1)

    def decode(
        self, latent: Float[Tensor, "C f h w"], height: int, width: int
    ) -> UInt8[Tensor, "F H W 3"]:
        """Decode latents; see :class:`Codec`."""
        return torch.cat(list(self.decode_chunks([latent], height, width)))

    def valid(self, num_frames: int, height: int, width: int) -> Bool[Tensor, "C f h w"]:
        """Mark the latent values that see more than edge padding."""
        return valid_values(self.config, num_frames, height, width)

    @torch.no_grad()
    def encode_chunks(
        self, frames: Iterable[UInt8[Tensor, "F H W 3"]]
    ) -> Iterator[Float[Tensor, "C f h w"]]:
        """Encode a clip that arrives in pieces of any length; yield latents as they are ready.

        Memory is bounded by the frame's size. Raises ValueError where all pieces together do not
        have 1 + k * stride frames.
        """
        stride = self.config.stride
        cut: list[Tile] = []
        memories: list[Memory | None] = []
        for pixels in self._whole_blocks(frames):
            _, height, width, _ = pixels.shape
            _, h, w = self.config.latent_shape(1, height, width)
            if not cut:
                cut = tiles(h, w, self._tile, self._reach.encoder)
                memories = [None] * len(cut)
            padded = pad_edges(pixels, h * stride[1], w * stride[2])[None]
            latent = padded.new_empty(self.config.channels, len(pixels) // stride[0], h, w)
            for i, tile in enumerate(cut):
                rows = _times(tile.seen_rows, stride[1])
                columns = _times(tile.seen_columns, stride[2])
                seen = padded[:, :, rows, columns]
                mean, _, memories[i] = self.vae.encoder(seen, memories[i])
                latent[:, :, tile.rows, tile.columns] = mean[0][:, :, *tile.inner]
            yield (latent - self._mean.to(latent)) / self.config.scale

    @torch.no_grad()
    def decode_chunks(
        self, latents: Iterable[Float[Tensor, "C f h w"]], height: int, width: int
    ) -> Iterator[UInt8[Tensor, "F H W 3"]]:
        """Decode latents that arrive in pieces; yield frames as they are ready."""
        stride = self.config.stride
        cut: list[Tile] = []
        memories: list[Memory | None] = []
        for piece in latents:
            _, f, h, w = piece.shape
            if not cut:
                cut = tiles(h, w, self._tile, self._reach.decoder)
                memories = [None] * len(cut)
                trim = stride[0] - 1  # copies of the first frame
            for start in range(0, f, self._chunk(h, w)):
                chunk = piece[:, start : start + self._chunk(h, w)].to(torch.float32)
                chunk = (chunk * self.config.scale + self._mean.to(chunk))[None]
                num_frames = chunk.shape[2] * stride[0]
                frames = torch.empty(num_frames, height, width, 3, dtype=torch.uint8)
                for i, tile in enumerate(cut):
                    seen = chunk[:, :, :, tile.seen_rows, tile.seen_columns]
                    pixels, memories[i] = self.vae.decoder(seen, memories[i])
                    inner = [_times(s, n) for s, n in zip(tile.inner, stride[1:], strict=True)]
                    rows, columns = _times(tile.rows, stride[1]), _times(tile.columns, stride[2])
                    target = frames[:, rows, columns]  # a view, trimmed where the padding begins
                    kept = pixels[0][:, inner[0], inner[1]]
                    target.copy_(to_frames(kept[:, : target.shape[1], : target.shape[2]]))
                yield frames[trim:]
                trim = 0

    def memory_bytes(self, height: int, width: int) -> int:
        """Return what encoder and decoder keep between chunks for frames of a size.

        Every block keeps its last two frames, halos included, and nothing else.
        """
        _, h, w = self.config.latent_shape(1, height, width)
        vae, total = self.vae.config, 0
        fold = vae.fold[1] * vae.fold[2]
        for (outer, inner), (outers, inners), halo in (
            (vae.encoder_widths, vae.encoder_blocks, self._reach.encoder),
            (vae.decoder_widths[::-1], vae.decoder_blocks[::-1], self._reach.decoder),
        ):
            cells = 0
            for tile in tiles(h, w, self._tile, halo):
                rows, columns = tile.seen_rows, tile.seen_columns
                cells += (rows.stop - rows.start) * (columns.stop - columns.start)
            total += cells * (fold * outer * outers + inner * inners)
        return total * (TAPS - 1) * 4

    def _chunk(self, h: int, w: int) -> int:
        """Return how many latent frames of a grid go through the network at once."""
        halo = 2 * max(self._reach.encoder, self._reach.decoder)
        seen = min(h, self._tile + halo) * min(w, self._tile + halo)
        return max(1, self._cells // seen)

    def _whole_blocks(
        self, pieces: Iterable[UInt8[Tensor, "F H W 3"]]
    ) -> Iterator[Float[Tensor, "F H W 3"]]:
        """Regroup frames into chunks of whole blocks in time; the first frame is repeated."""
        stride = self.config.stride[0]
        held: Tensor | None = None
        total = 0
        for piece in pieces:
            total += len(piece)
            if held is None:
                held = lead_in(piece[None], stride)[0]
            else:
                held = torch.cat([held, piece])
            _, h, w = self.config.latent_shape(1, *held.shape[1:3])
            size = stride * self._chunk(h, w)
            for start in range(0, len(held) - size + 1, size):
                yield to_pixels(held[start : start + size])
            held = held[len(held) // size * size :]
        if held is not None:
            self.config.latent_shape(total, *held.shape[1:3])  # refuses a length off the grid
            if len(held):
                yield to_pixels(held)


def _times(cells: slice, stride: int) -> slice:
    """Turn a range of cells into one of pixels."""
    return slice(cells.start * stride, cells.stop * stride)
