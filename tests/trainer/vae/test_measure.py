"""Measures of a codec, and the plain rivals that it must beat."""

import math

import pytest
import torch

from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig
from trainer.vae.measure import best_plain, codec_coder, flicker, interval, judge, plain, ssim


def moving(num_frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    rows = torch.arange(height).view(1, -1, 1, 1) / 9
    columns = torch.arange(width).view(1, 1, -1, 1) / 13
    frames = torch.arange(num_frames).view(-1, 1, 1, 1) / 4
    phase = torch.tensor([0.0, 0.7, 1.9])
    return (128 + 90 * torch.sin(rows + frames + phase) * torch.cos(columns)).to(torch.uint8)


def test_a_perfect_copy_has_no_fault() -> None:
    found = judge(lambda clip: (clip, 1000), moving(9))
    assert found.psnr > 80
    assert found.ssim == pytest.approx(1)
    assert found.flicker == 0
    assert found.values / found.pixels == pytest.approx(1000 / (9 * 48 * 64))


def test_a_constant_error_has_the_psnr_of_its_size_and_does_not_flicker() -> None:
    clip = moving(5)
    found = judge(lambda frames: (frames + 10, 1), clip)
    assert found.psnr == pytest.approx(20 * math.log10(255 / 10))
    assert found.flicker == 0


def test_flicker_is_the_size_of_an_error_that_comes_and_goes() -> None:
    clip = moving(8)
    made = clip.clone()
    made[::2] += 6
    assert flicker(made, clip) == pytest.approx(6)
    assert math.isnan(flicker(clip[:1], clip[:1]))


def test_ssim_sees_structure_rather_than_brightness() -> None:
    clip = moving(2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-10, 11, clip.shape, generator=generator)
    noisy = (clip.int() + noise).clamp(0, 255).to(torch.uint8)
    assert ssim(clip, clip) == pytest.approx(1)
    assert ssim(noisy, clip) < ssim(clip + 6, clip) < 1
    assert ssim(clip[:, :7, :7], clip[:, :7, :7]) == pytest.approx(1)  # under one window


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(1, 48, 64), (9, 40, 52), (17, 33, 80)], ids=str)
def test_a_plain_rival_gets_at_least_the_values_of_the_codec(
    stride: int, size: tuple[int, int, int]
) -> None:
    clip = moving(*size)
    _, values = codec_coder(WaveletCodec(CodecConfig()))(clip)
    made, spent = plain(clip, stride, values)
    assert made.shape == clip.shape
    assert values <= spent < 1.2 * values + 60
    # Averages of an image or of steady motion are recognisable: no rival is a straw man.
    assert judge(lambda frames: (made, spent), clip).psnr > 20


def test_a_plain_rival_keeps_what_is_constant_and_linear_motion_of_brightness() -> None:
    flat = torch.full((9, 32, 32, 3), 77, dtype=torch.uint8)
    assert torch.equal(plain(flat, 4, 50)[0], flat)
    ramp = flat + (4 * torch.arange(9, dtype=torch.uint8)).view(-1, 1, 1, 1)
    made = plain(ramp, 4, 300)[0]
    assert (made[:7].int() - ramp[:7].int()).abs().max() <= 1  # after the last mean it is held


def test_the_best_rival_is_at_least_as_good_as_each() -> None:
    clip = moving(17)
    name, best = best_plain(clip, 1500)
    assert "frames" in name
    for stride in (1, 2, 4):
        assert best.psnr >= judge(lambda c, s=stride: plain(c, s, 1500), clip).psnr


def test_an_interval_holds_the_mean_and_shrinks_with_clips() -> None:
    few, many = [1.0, 2.0, 3.0, float("nan")], [1.0, 2.0, 3.0] * 50
    mean, low, high = interval(few)
    assert (mean, low <= mean <= high) == (2.0, True)
    _, closer, further = interval(many)
    assert further - closer < high - low
    assert all(math.isnan(v) for v in interval([float("nan")]))
