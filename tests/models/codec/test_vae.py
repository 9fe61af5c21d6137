"""The compression network: a wavelet at first, causal, and of the size its preset says."""

from dataclasses import replace

import pytest
import torch

from data.bounds import check_bounds
from models.codec.lpips import Lpips
from models.codec.patches import haar, haar_patch, low_pass, to_patches
from models.codec.vae import Reach, Vae, lead_in, reach
from models.codec.wavelet import WaveletCodec
from models.config import CodecConfig, ModelConfig, VaeConfig
from models.dit.model import DiT

SMALL = VaeConfig(
    encoder_widths=[8, 12], decoder_widths=[12, 8], encoder_blocks=[2, 1], decoder_blocks=[1, 2]
)
BIG = VaeConfig(
    patch=[2, 4, 4],
    fold=[2, 2, 2],
    channels=16,
    encoder_widths=[256, 768],
    encoder_blocks=[4, 8],
    decoder_widths=[1024, 384],
    decoder_blocks=[10, 8],
    expansion=4,
)


def fresh(config: VaeConfig) -> Vae:
    vae = Vae(config)
    vae.reset_parameters(torch.Generator().manual_seed(0))
    return vae


def shaken(config: VaeConfig = SMALL) -> Vae:
    """Return a network none of whose parts is silent."""
    vae, generator = fresh(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return vae


def clip(num_frames: int, height: int, width: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    return 2 * torch.rand(batch, num_frames, height, width, 3, generator=generator) - 1


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_haar_transform_is_orthonormal_and_begins_with_the_mean(size: int) -> None:
    transform = haar(size)
    torch.testing.assert_close(transform @ transform.T, torch.eye(size))
    torch.testing.assert_close(transform[0], torch.full((size,), size**-0.5))


def test_the_transform_of_a_patch_is_orthonormal() -> None:
    transform = haar_patch([2, 4, 2])
    torch.testing.assert_close(transform @ transform.T, torch.eye(48))


@torch.no_grad()
def test_an_untrained_network_is_the_wavelet_codec_with_a_few_finer_details() -> None:
    vae, pixels = fresh(SMALL), clip(5, 32, 48)
    rows = low_pass(SMALL)
    torch.testing.assert_close(rows @ rows.T / 768, torch.eye(8))
    latent, log_variance = vae.posterior(pixels)
    made = vae.decode(latent)
    assert (log_variance == -10).all()
    frames = ((pixels[0] + 1) * 127.5).round().to(torch.uint8)
    wavelet = WaveletCodec(CodecConfig())
    theirs = wavelet.decode(wavelet.encode(frames), 32, 48) / 127.5 - 1
    ours = (made[0] - pixels[0]).square().mean()
    assert ours < (theirs - pixels[0]).square().mean()
    # Six of the rows span what the wavelet keeps: a picture of its own comes back unchanged.
    kept = theirs[None].clamp(-1, 1)
    back = vae.decode(vae.posterior(kept)[0])
    torch.testing.assert_close(back, kept, rtol=0, atol=0.02)  # it rounds to 1 / 127.5


@torch.no_grad()
def test_rows_given_become_the_linear_path() -> None:
    vae, pixels = fresh(SMALL), clip(5, 16, 16)
    rows = torch.linalg.qr(torch.randn(768, 8, generator=torch.Generator().manual_seed(0)))[0].T
    vae.set_low_pass(rows)
    blocks = to_patches(to_patches(lead_in(pixels, 4), SMALL.patch), SMALL.fold)
    latent, _ = vae.posterior(pixels)
    torch.testing.assert_close(latent[0].permute(1, 2, 3, 0), blocks[0] @ rows.T / 768**0.5)
    projected = to_patches(to_patches(lead_in(vae.decode(latent), 4), [4, 4, 4]), [1, 2, 2])
    torch.testing.assert_close(projected[:, 1:], (blocks @ rows.T @ rows)[:, 1:])


@torch.no_grad()
def test_what_comes_later_changes_nothing_before_it() -> None:
    vae, pixels = shaken(), clip(13, 32, 32)
    changed = pixels.clone()
    changed[:, 5:] = clip(8, 32, 32)
    for part in range(2):
        before, after = (vae.posterior(p)[part] for p in (pixels, changed))
        torch.testing.assert_close(before[:, :, :2], after[:, :, :2], rtol=0, atol=0)
        assert (before[:, :, 2] != after[:, :, 2]).any()
    latent = vae.posterior(pixels)[0]
    other = latent.clone()
    other[:, :, 2:] += 1
    torch.testing.assert_close(vae.decode(latent)[:, :5], vae.decode(other)[:, :5], rtol=0, atol=0)


@torch.no_grad()
def test_the_first_frame_of_a_clip_is_coded_as_an_image() -> None:
    vae, pixels = shaken(), clip(9, 32, 48)
    image = vae.posterior(pixels[:, :1])[0]
    torch.testing.assert_close(image, vae.posterior(pixels)[0][:, :, :1], rtol=0, atol=1e-6)
    assert vae.decode(image).shape == (1, 1, 32, 48, 3)


@torch.no_grad()
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_cell_sees_as_far_as_reach_says_and_no_further(part: str) -> None:
    vae, radius = shaken(), getattr(reach(SMALL), part)
    cells = 2 * radius + 3
    middle, (t, r, c) = radius + 1, SMALL.stride

    def respond(change: int) -> torch.Tensor:
        """Return where the middle cell's output changes when one cell of a row does."""
        if part == "encoder":
            pixels = torch.zeros(1, t, 8 * r, cells * c, 3)
            pixels[:, :, :, change * c : (change + 1) * c] = 1
            return vae.encoder(pixels)[0][:, :, :, :, middle]
        latent = torch.zeros(1, 8, 1, 8, cells)
        latent[:, :, :, :, change] = 1
        return vae.decoder(latent)[0][:, :, :, middle * c : (middle + 1) * c]

    silent = respond(0)  # radius + 1 cells away
    edge = respond(1)
    rest = respond(cells - 1)
    torch.testing.assert_close(silent, rest, rtol=0, atol=1e-6)
    assert (edge - rest).abs().max() > 1e-6


@torch.no_grad()
def test_clips_of_a_batch_do_not_meet() -> None:
    vae, pixels = shaken(), clip(5, 32, 32, batch=3)
    alone = torch.cat([vae.posterior(one[None])[0] for one in pixels])
    torch.testing.assert_close(vae.posterior(pixels)[0], alone)


def test_the_real_preset_has_the_shapes_and_size_it_says() -> None:
    with torch.device("meta"):
        vae, pixels = Vae(BIG), torch.empty(1, 17, 256, 384, 3)
        latent, log_variance = vae.posterior(pixels)
        assert latent.shape == log_variance.shape == (1, 16, 5, 32, 48)
        assert vae.decode(latent).shape == pixels.shape
    params = sum(p.numel() for p in vae.parameters())
    assert 135e6 < params < 142e6
    assert BIG.stride == [4, 8, 8]


@torch.no_grad()
def test_a_fold_in_time_keeps_the_first_frame_alone() -> None:
    config = VaeConfig(
        patch=[2, 4, 4],
        fold=[2, 2, 2],
        encoder_widths=[8, 8],
        decoder_widths=[8, 8],
        encoder_blocks=[1, 1],
        decoder_blocks=[1, 1],
    )
    vae, pixels = shaken(config), clip(9, 16, 32)
    image, whole = vae.posterior(pixels[:, :1])[0], vae.posterior(pixels)[0]
    torch.testing.assert_close(image, whole[:, :, :1], rtol=0, atol=1e-6)
    assert vae.decode(whole).shape == pixels.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": [4, 4, 3]}, r"vae.patch=\[4, 4, 3\]: must be three powers of two"),
        ({"fold": [1, 3, 2]}, r"vae.fold=\[1, 3, 2\]: must be three powers of two"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vae(VaeConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": [1, 2]}, r"vae.fold=\[1, 2\]: must hold 3 values"),
        ({"decoder_widths": [8]}, r"vae.decoder_widths=\[8\]: must hold 2 values"),
        ({"decoder_widths": [8, 0]}, r"vae.decoder_widths\[1\]=0: must be at least 1"),
        ({"channels": 25}, r"vae.channels=25: must be at most 24"),
        ({"expansion": 0}, r"vae.expansion=0: must be at least 1"),
    ],
)
def test_sizes_outside_their_bounds_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_bounds(VaeConfig(**changes), "vae.")


def test_weights_hold_what_is_learned_and_no_fixed_transform() -> None:
    for network in (fresh(SMALL), Lpips(), DiT(ModelConfig())):
        learned = [name for name, _ in network.named_parameters()]
        assert sorted(network.state_dict()) == sorted(learned)


def test_reach_is_a_block_a_position_and_a_fold_shares_the_outer_ones() -> None:
    config = VaeConfig(
        fold=[4, 2, 8], encoder_blocks=[3, 5], decoder_blocks=[7, 4], encoder_widths=[8, 8],
        decoder_widths=[8, 8],
    )  # fmt: skip
    assert reach(config) == Reach(encoder=5 + 2, decoder=7 + 2)  # outer blocks over 2, rounded up
    assert reach(replace(config, fold=[1, 4, 3])) == Reach(encoder=5 + 1, decoder=7 + 2)


def test_first_values_keep_the_size_of_what_flows_and_blocks_together_add_one() -> None:
    config = VaeConfig(
        encoder_widths=[64, 64], decoder_widths=[64, 64], encoder_blocks=[2, 3],
        decoder_blocks=[4, 1],
    )  # fmt: skip
    vae = Vae(config)
    for parameter in vae.parameters():
        if parameter is not vae.encoder.low_pass and parameter is not vae.decoder.low_pass:
            parameter.data.fill_(7.0)
    vae.reset_parameters(torch.Generator().manual_seed(0))
    for part in (vae.encoder, vae.decoder):
        blocks = [*part.inner, *part.outer]
        for layer, size in (
            (part.fold if part is vae.encoder else part.unfold, 1.0),
            *((block.up, 1.0) for block in blocks),
            *((block.down, len(blocks) ** -0.5) for block in blocks),
        ):
            expected = size * layer.in_features**-0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert not layer.bias.any()
        for block in blocks:
            assert block.time.tolist() == [[1.0] * 64, [0.0] * 64, [0.0] * 64]
            assert block.gain.eq(1.0).all()
            centre = block.space[:, :, 1, 1].mean().item()
            assert centre == pytest.approx(1.0, abs=4 / 9 / 8)
            around = block.space.clone()
            around[:, :, 1, 1] -= 1.0
            assert around.std().item() == pytest.approx(1 / 9, rel=0.15)
        assert not part.out.weight.any()
        assert not part.out.bias.any()


def test_the_low_pass_path_begins_with_means_and_first_details_and_then_finer_ones() -> None:
    config = VaeConfig(patch=[2, 2, 2], fold=[1, 1, 1], channels=7)
    rows = low_pass(config).view(7, 2, 2, 2, 3)
    luma, blue, red = (
        torch.tensor(c) / sum(x * x for x in c) ** 0.5
        for c in ((1.0, 1, 1), (-1.0, -1, 2), (1.0, -1, 0))
    )
    flat, up = torch.ones(2), torch.tensor([1.0, -1.0])
    for row, (t, h, w, colour) in enumerate(
        [(flat, flat, flat, luma), (flat, flat, flat, blue), (flat, flat, flat, red),
         (up, flat, flat, luma), (flat, up, flat, luma), (flat, flat, up, luma),
         (flat, flat, up, blue)]
    ):  # fmt: skip
        expected = torch.einsum("t,h,w,c->thwc", t, h, w, colour) * 3**0.5
        torch.testing.assert_close(rows[row], expected, msg=f"row {row}")
