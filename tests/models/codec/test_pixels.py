"""Pixels as latents: nothing is lost, nothing but real pixels counts, tokens are blocks."""

import pytest
import torch

from models.codec.codec import valid_values
from models.codec.patches import to_patches
from models.codec.pixels import PixelCodec
from models.config import CodecConfig, CodecKind
from trainer.config import compose_run

STRIDES = ([1, 2, 2], [2, 2, 2], [4, 2, 2])
SIZES = ((1, 8, 32), (9, 8, 32), (9, 20, 20), (5, 9, 14))


def codec_of(stride):
    """Return a codec of pixels of a stride."""
    channels = 12 * stride[0]
    return PixelCodec(
        CodecConfig(CodecKind.pixels, stride, channels, [-0.6] * channels, 0.8, [0.5] * channels)
    )


def noise_clip(num_frames, height, width):
    """Return random pixels, uint8 (F, H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, height, width, 3), generator=generator).byte()


@pytest.mark.parametrize("stride", STRIDES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_come_back_exactly_and_each_counts_once(stride, size):
    codec, clip = codec_of(stride), noise_clip(*size)
    latent = codec.encode(clip)
    assert latent.shape == (12 * stride[0], *codec.config.latent_shape(*size))
    assert torch.equal(codec.decode(latent.half().float(), *size[1:]), clip)
    valid = valid_values(codec.config, *size)
    assert torch.equal(valid, codec.valid(*size))
    assert valid.sum() == clip.numel()
    real = (latent * 0.8 - 0.6)[valid].sort().values
    assert torch.allclose(real, (clip.float() / 127.5 - 1).flatten().sort().values, atol=1e-5)


def test_the_frames_before_the_first_are_zero():
    latent = codec_of([4, 2, 2]).encode(noise_clip(9, 8, 8))
    assert (latent[:36, 0] == 0).all()
    assert (latent[36:, 0] != 0).any()


def test_a_token_of_two_by_two_latents_is_a_block_of_four_by_four_pixels():
    clip = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    clip[0, :4, 4:] = 255
    latent = codec_of([1, 2, 2]).encode(clip)
    tokens = to_patches(latent.permute(1, 2, 3, 0)[None], [1, 2, 2])[0, 0]  # (2, 2, 48)
    assert (tokens[0, 1] > 0).all()
    assert (tokens[[0, 1, 1], [0, 0, 1]] < 0).all()


def test_a_run_takes_the_shape_of_its_pixels():
    run = compose_run(["codec=pixels", "horizon.steps=1"])
    assert run.cell == (2, 4, 4)
    assert run.model.values_per_token == 96
    assert run.codec.mean == [-0.6] * 24
    assert run.model.spread == [0.5] * 24


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["codec.stride=[1,2,2]"], "codec.channels=24: must be 3 x the pixels .* Use 12"),
        (["codec.path=here"], "codec.path=here: codec.kind=pixels has no weights"),
    ],
)
def test_channels_that_are_no_pixels_and_weights_are_refused(words, rule):
    with pytest.raises(ValueError, match=rule):
        compose_run(["codec=pixels", "horizon.steps=1", *words])
