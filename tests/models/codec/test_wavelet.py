"""The wavelet codec: a projection with orthogonal rows, for any size."""

from itertools import product

import pytest
import torch

from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig

PLAIN = WaveletCodec(CodecConfig())
SCALED = WaveletCodec(
    CodecConfig(
        mean=[-0.4446, -0.0404, 0.0430, 0.0, 0.0, 0.0],
        scale=0.4136,
    )
)


def smooth_clip(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Return a mid-range clip of moving colour gradients, uint8 (F, H, W, 3)."""
    f = torch.arange(num_frames).view(-1, 1, 1, 1) / 9
    h = torch.arange(height).view(1, -1, 1, 1) / 23
    w = torch.arange(width).view(1, 1, -1, 1) / 31
    phase = torch.tensor([0.0, 0.7, 1.9])
    return (128 + 50 * torch.sin(f + h + phase) * torch.cos(w - f)).to(torch.uint8)


@pytest.mark.parametrize("codec", [PLAIN, SCALED], ids=["plain", "scaled"])
@pytest.mark.parametrize("size", [(1, 16, 16), (5, 32, 48), (17, 64, 32)], ids=str)
def test_coding_twice_changes_nothing_more(codec: WaveletCodec, size: tuple[int, ...]) -> None:
    once = codec.decode(codec.encode(smooth_clip(*size)), *size[1:])
    twice = codec.decode(codec.encode(once), *size[1:])
    assert once.shape == (*size, 3)
    # The decoder rounds to whole levels: a projection up to one of them.
    assert (once.int() - twice.int()).abs().max() <= 1


@pytest.mark.parametrize("codec", [PLAIN, SCALED], ids=["plain", "scaled"])
def test_clips_constant_in_blocks_come_back_exactly(codec: WaveletCodec) -> None:
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 256, (3, 4, 6, 3), generator=generator, dtype=torch.uint8)
    later = colours[1:].repeat_interleave(4, 0)
    clip = torch.cat([colours[:1], later]).repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(codec.decode(codec.encode(clip), 32, 48), clip)


def test_brightness_steps_along_each_axis_come_back_exactly() -> None:
    for axis in range(3):
        clip = torch.full((5, 16, 16, 3), 100, dtype=torch.uint8)
        half = [clip[3:], clip[:, 4:8], clip[:, :, 12:]][axis]
        half += 40
        assert torch.equal(PLAIN.decode(PLAIN.encode(clip), 16, 16), clip), f"axis {axis}"


@pytest.mark.parametrize("size", [(9, 45, 80), (1, 1, 1), (5, 270, 33), (13, 17, 15)], ids=str)
def test_sizes_off_the_grid_are_padded_and_trimmed(size: tuple[int, int, int]) -> None:
    clip = smooth_clip(*size)
    latent = PLAIN.encode(clip)
    assert latent.shape == (6, *CodecConfig().latent_shape(*size))
    assert latent.shape[2] % 2 == latent.shape[3] % 2 == 0
    decoded = PLAIN.decode(latent, size[1], size[2])
    assert decoded.shape == clip.shape
    assert (decoded.float() - clip.float()).abs().mean() < 6


def test_a_value_is_valid_where_it_sees_a_pixel() -> None:
    # 17 rows fill 3 blocks of 8 and are padded to 4; 40 columns fill 5 and are padded to 6.
    mask = PLAIN.valid(5, 17, 40)
    assert mask.shape == (6, 2, 4, 6)
    luma = mask[0]
    assert luma[:, :3, :5].all()
    assert not luma[:, 3:].any()
    assert not luma[:, :, 5:].any()
    assert not mask[3, 0].any()  # a lone first frame has no temporal detail
    assert torch.equal(mask[3, 1], luma[1])


def test_padding_never_reaches_a_valid_value_of_another_block() -> None:
    clip = smooth_clip(5, 16, 16)
    cut, whole = PLAIN.encode(clip[:, :8, :8]), PLAIN.encode(clip)
    torch.testing.assert_close(cut[:, :, :1, :1], whole[:, :, :1, :1])


def test_rows_of_the_transform_are_orthogonal() -> None:
    # The linear map of one later block (4 frames x 8 x 8 pixels x RGB) to its 6 values, probed
    # through encode: its rows are the responses to each pixel set alone.
    base = torch.zeros(5, 8, 8, 3, dtype=torch.uint8)
    zero = PLAIN.encode(base)[:, 1, 0, 0]
    columns = []
    for frame, row, column in product((1, 4), (0, 7), (0, 7)):
        for colour in range(3):
            probe = base.clone()
            probe[frame, row, column, colour] = 255
            columns.append(PLAIN.encode(probe)[:, 1, 0, 0] - zero)
    rows = torch.stack(columns, dim=1).double()  # (6, 24): one pixel of each eighth of the block
    gram = rows @ rows.T
    scale = gram.diagonal().sqrt()
    assert (scale > 0).all()
    off = gram / scale.outer(scale) - torch.eye(6, dtype=torch.float64)
    assert off.abs().max() < 1e-5


def test_statistics_only_shift_and_scale() -> None:
    clip = smooth_clip(5, 32, 32)
    mean = torch.tensor(SCALED.config.mean).view(-1, 1, 1, 1)
    torch.testing.assert_close(SCALED.encode(clip) * 0.4136 + mean, PLAIN.encode(clip))


def test_other_strides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codec.stride=\[2, 8, 8\].* is built for .* Use those"):
        WaveletCodec(CodecConfig(stride=[2, 8, 8]))


def test_frame_counts_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_frames=16: must be 1 \+ k \* 4\. Cut .* to 13"):
        PLAIN.encode(smooth_clip(16, 16, 16))
