"""The network as a codec: tiles and chunks cannot be seen, any size goes in and comes out."""

import dataclasses

import pytest
import torch

from models.codec.codec import VaeCodec, pad_edges, tiles, to_frames, to_pixels, valid_values
from models.codec.vae import Vae
from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig, CodecKind, VaeConfig

# fp32 of convolutions over other extents; latents here are of size 1.
TOLERANCE = 1e-6
NETWORK = VaeConfig(
    encoder_widths=[8, 12], decoder_widths=[12, 8], encoder_blocks=[2, 1], decoder_blocks=[1, 2]
)
CODEC = CodecConfig(
    kind=CodecKind.vae, channels=8, mean=[0.1] * 8, scale=0.5, spread=[1.0] * 8, path="somewhere"
)
SIZES = [(1, 33, 50), (9, 75, 90), (13, 16, 130), (17, 121, 40)]


@pytest.fixture(scope="module")
def vae() -> Vae:
    """Return a network none of whose parts is silent."""
    made, generator = Vae(NETWORK), torch.Generator().manual_seed(1)
    made.reset_parameters(generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


def clip(size: tuple[int, int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("tile", "cells"), [(4, 1), (5, 10**9), (10**9, 1), (3, 300)])
def test_tiles_and_chunks_cannot_be_seen(
    vae: Vae, size: tuple[int, int, int], tile: int, cells: int
) -> None:
    whole, cut = VaeCodec(CODEC, vae, 10**9, 10**9), VaeCodec(CODEC, vae, tile, cells)
    frames = clip(size)
    latent = whole.encode(frames)
    assert latent.shape == (8, *CODEC.latent_shape(*size))
    torch.testing.assert_close(cut.encode(frames), latent, rtol=0, atol=TOLERANCE)
    made, again = whole.decode(latent, *size[1:]), cut.decode(latent, *size[1:])
    assert made.shape == frames.shape
    assert (made.int() - again.int()).abs().max() <= 1  # rounded to whole levels
    assert (made != again).float().mean() < 1e-3


def test_a_halo_narrower_than_the_reach_would_be_seen(vae: Vae) -> None:
    frames, cut = clip((5, 64, 96)), VaeCodec(CODEC, vae, 4, 1)
    whole = VaeCodec(CODEC, vae, 10**9, 10**9).encode(frames)
    cut._reach = type(cut._reach)(cut._reach.encoder - 1, cut._reach.decoder - 1)
    assert (cut.encode(frames) - whole).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("pieces", [[17], [1, 16], [3, 5, 9], [4, 4, 4, 4, 1], [1] * 17], ids=str)
def test_frames_may_arrive_in_pieces_of_any_length(vae: Vae, pieces: list[int]) -> None:
    codec, frames = VaeCodec(CODEC, vae, 4, 1), clip((17, 40, 48))
    streamed = torch.cat(list(codec.encode_chunks(frames.split(pieces))), dim=1)
    torch.testing.assert_close(streamed, codec.encode(frames), rtol=0, atol=TOLERANCE)
    made = torch.cat(list(codec.decode_chunks(streamed.split([2, 1, 2], dim=1), 40, 48)))
    assert torch.equal(made, codec.decode(streamed, 40, 48))


def test_chunks_leave_before_all_frames_have_arrived(vae: Vae) -> None:
    codec, frames, taken = VaeCodec(CODEC, vae, 4, 1), clip((17, 32, 32)), []

    def arriving():
        for frame in frames.split(1):
            taken.append(1)
            yield frame

    latents = codec.encode_chunks(arriving())
    assert next(latents).shape[1] == 1
    assert len(taken) == 1  # the first frame is coded alone
    next(latents)
    assert len(taken) == 5


def test_what_is_kept_between_chunks_is_what_the_closed_form_says(vae: Vae) -> None:
    codec, kept = VaeCodec(CODEC, vae, 4, 1), 0
    original = (vae.encoder.forward, vae.decoder.forward)

    def counting(forward):
        def run(inputs, memory):
            nonlocal kept
            found = forward(inputs, memory)
            kept += sum(past.numel() * past.element_size() for past in found[-1])
            return found

        return run

    vae.encoder.forward, vae.decoder.forward = map(counting, original)
    try:
        codec.decode(codec.encode(clip((1, 75, 90))), 75, 90)  # every tile once
    finally:
        vae.encoder.forward, vae.decoder.forward = original
    assert kept == codec.memory_bytes(75, 90)


@pytest.mark.parametrize("pieces", [[2], [1, 2]], ids=str)
def test_a_length_off_the_grid_is_refused(vae: Vae, pieces: list[int]) -> None:
    frames = clip((sum(pieces), 32, 32))
    with pytest.raises(ValueError, match=r"num_frames=\d: must be 1 \+ k \* 4. Cut the clip"):
        list(VaeCodec(CODEC, vae).encode_chunks(frames.split(pieces)))


@pytest.mark.parametrize(("height", "width", "side"), [(1, 1, 4), (136, 240, 64), (7, 30, 5)])
def test_tiles_cover_every_cell_once(height: int, width: int, side: int) -> None:
    seen = torch.zeros(height, width)
    for tile in tiles(height, width, side, 3):
        seen[tile.rows, tile.columns] += 1
        assert tile.rows.stop - tile.rows.start <= side
        assert torch.zeros(height, width)[tile.seen_rows, tile.seen_columns][tile.inner].shape == (
            seen[tile.rows, tile.columns].shape
        )
    assert (seen == 1).all()


def test_values_that_see_only_padding_carry_no_loss(vae: Vae) -> None:
    codec, size = VaeCodec(CODEC, vae), (5, 40, 50)
    mask = codec.valid(*size)
    assert mask.shape == (8, 2, 6, 8)
    assert mask[:, :, :5, :7].all()
    assert not mask[:, :, 5:].any()
    assert not mask[:, :, :, 7:].any()
    wavelet = WaveletCodec(CodecConfig())
    assert torch.equal(valid_values(wavelet.config, *size), wavelet.valid(*size))


def test_pixels_and_frames_are_inverse_and_padding_repeats_edges() -> None:
    frames = clip((2, 5, 7))
    assert torch.equal(to_frames(to_pixels(frames)), frames)
    grown = pad_edges(to_pixels(frames), 8, 8)
    assert grown.shape == (2, 8, 8, 3)
    assert torch.equal(grown[:, :5, :7], to_pixels(frames))
    assert torch.equal(grown[:, 7, 7], grown[:, 4, 6])


def test_a_codec_neither_trains_its_network_nor_changes_it(vae: Vae) -> None:
    made = Vae(NETWORK).train().requires_grad_(True)
    codec = VaeCodec(CODEC, made)
    assert not codec.vae.training
    assert not any(parameter.requires_grad for parameter in codec.vae.parameters())


def test_latents_are_scaled_by_the_codecs_statistics(vae: Vae) -> None:
    plain = VaeCodec(dataclasses.replace(CODEC, mean=[0.0] * 8, scale=1.0), vae)
    codec, frames = VaeCodec(CODEC, vae), clip((5, 32, 32))
    raw, scaled = plain.encode(frames), codec.encode(frames)
    torch.testing.assert_close(scaled * 0.5 + 0.1, raw)
    assert torch.equal(codec.decode(scaled, 32, 32), plain.decode(scaled * 0.5 + 0.1, 32, 32))
    assert plain.decode(scaled * 0.5 + 0.1, 30, 17).shape == (5, 30, 17, 3)


def test_tiles_are_even_and_see_their_halo_up_to_the_border() -> None:
    found = tiles(10, 4, 4, 2)
    assert [(t.rows.start, t.rows.stop) for t in found] == [(0, 3), (3, 6), (6, 10)]
    assert [(t.seen_rows.start, t.seen_rows.stop) for t in found] == [(0, 5), (1, 8), (4, 10)]
    assert {(t.columns.start, t.columns.stop) for t in found} == {(0, 4)}
    assert {(t.seen_columns.start, t.seen_columns.stop) for t in found} == {(0, 4)}
    assert [(t.inner[0].start, t.inner[0].stop) for t in found] == [(0, 3), (2, 5), (2, 6)]


def test_levels_are_rounded_and_clipped() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 100.4 / 127.5 - 1, 100.6 / 127.5 - 1])
    assert to_frames(pixels).tolist() == [0, 0, 128, 255, 255, 100, 101]
    assert to_pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
