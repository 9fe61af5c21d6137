"""Pretrained autoencoders of diffusers as codecs: tiny random ones, saved to a local folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from trainer.codec.build import load_codec
from trainer.codec.diffusers import DiffusersCodec, open_autoencoder
from trainer.codec.files import resolve
from trainer.config import RunConfig, compose_run
from trainer.encode.encode import encode_dataset
from trainer.vae.statistics import main

from ..encode.test_encode import TEXT, write_clips

pytest.importorskip("diffusers")
# name -> arguments of the smallest network of its kind, and its stride and channels.
FOUR = 4
NETWORKS = {
    "AutoencoderKLWan": (
        {"base_dim": 3, "z_dim": 16, "dim_mult": [1] * FOUR, "num_res_blocks": 1},
        [4, 8, 8],
        16,
    ),
    "AutoencoderKLCogVideoX": (
        {
            "down_block_types": ("CogVideoXDownBlock3D",) * FOUR,
            "up_block_types": ("CogVideoXUpBlock3D",) * FOUR,
            "block_out_channels": (4,) * FOUR,
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
        [4, 8, 8],
        4,
    ),
    "AutoencoderKLLTXVideo": (
        {
            "latent_channels": 8,
            "block_out_channels": (4,) * FOUR,
            "decoder_block_out_channels": (4,) * FOUR,
            "layers_per_block": (1,) * 5,
            "decoder_layers_per_block": (1,) * 5,
            "spatio_temporal_scaling": (True, True, False, False),
            "decoder_spatio_temporal_scaling": (True, True, False, False),
            "patch_size": 2,
        },
        [4, 8, 8],
        8,
    ),
    "AutoencoderKLHunyuanVideo": (
        {
            "latent_channels": 4,
            "block_out_channels": (4,) * FOUR,
            "layers_per_block": 1,
            "norm_num_groups": 2,
        },
        [4, 8, 8],
        4,
    ),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one tiny random network of every kind."""
    import diffusers

    root = tmp_path_factory.mktemp("networks")
    for name, (arguments, _, _) in NETWORKS.items():
        torch.manual_seed(0)
        getattr(diffusers, name)(**arguments).save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny clip data set."""
    return write_clips(tmp_path_factory.mktemp("clips"))


def measured(networks: Path, name: str, clips: Path, *more: str) -> RunConfig:
    """Measure a network's latents and compose a run with it."""
    folder = networks / name
    if not (folder / "codec.json").exists():
        assert main([f"codec.path={folder}", f"data.root={clips}", "samples=3"]) == 0
    codec = ["codec=diffusers", f"codec.path={folder}"]
    return compose_run([f"data.root={clips}", "horizon.steps=1", *TEXT, *codec, *more])


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_codes_clips_of_any_size(networks: Path, name: str) -> None:
    codec, about = open_autoencoder(networks / name)
    assert isinstance(codec, DiffusersCodec)
    _, stride, channels = NETWORKS[name]
    assert about["_class_name"] == name
    assert (codec.config.stride, codec.config.channels) == (stride, channels)
    generator = torch.Generator().manual_seed(0)
    for num_frames in (1, 1 + stride[0], 1 + 2 * stride[0]):
        frames = torch.randint(
            0, 256, (num_frames, 37, 50, 3), dtype=torch.uint8, generator=generator
        )
        latent = codec.encode(frames)
        assert latent.shape == (channels, *codec.config.latent_shape(num_frames, 37, 50))
        assert codec.valid(num_frames, 37, 50).shape == latent.shape
        assert codec.decode(latent, 37, 50).shape == frames.shape


@pytest.mark.heavy
@pytest.mark.parametrize("name", NETWORKS)
def test_measured_latents_are_centred_and_scaled(networks: Path, name: str, clips: Path) -> None:
    run = measured(networks, name, clips)
    _, stride, channels = NETWORKS[name]
    assert run.codec.stride == stride
    assert run.model.values_per_token == 4 * channels
    assert max(run.codec.spread) == 1.0
    raw, scaled = open_autoencoder(networks / name)[0], load_codec(run.codec)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=generator)
    latent, mean = scaled.encode(frames), torch.tensor(run.codec.mean).view(-1, 1, 1, 1)
    theirs = raw.encode(frames)
    torch.testing.assert_close(latent * run.codec.scale + mean, theirs, rtol=1e-4, atol=1e-5)
    ours, wanted = scaled.decode(latent, 32, 32), raw.decode(theirs, 32, 32)
    assert (ours.int() - wanted.int()).abs().max() <= 1  # rounded to whole levels


@pytest.mark.heavy
def test_a_data_set_is_encoded_with_it(networks: Path, clips: Path, tmp_path: Path) -> None:
    run = measured(networks, "AutoencoderKLWan", clips)
    manifest = encode_dataset(run, tmp_path / "latents")
    assert manifest["codec"]["digest"] == run.codec.digest
    assert manifest["latent_statistics"]["std"] == pytest.approx(run.codec.spread, abs=1e-2)


@pytest.mark.heavy
def test_replaced_weights_are_refused(networks: Path, clips: Path, tmp_path: Path) -> None:
    run = measured(networks, "AutoencoderKLWan", clips)
    place = tmp_path / "other"
    shutil.copytree(resolve(run.codec.path), place)
    from safetensors.torch import load_file, save_file

    path = place / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    first = sorted(weights)[0]
    save_file(weights | {first: weights[first] + 1}, path, {"format": "pt"})
    run.codec.path = str(place)
    with pytest.raises(ValueError, match=r"codec.digest=.*The network was replaced"):
        load_codec(run.codec)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no config.json of diffusers"),
        ({"_class_name": "AutoencoderKL"}, r"_class_name=AutoencoderKL: must be one of"),
        ({"_class_name": "AutoencoderKLWan"}, r"holds no safetensors. Save the network with"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    content: dict | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=message):
        open_autoencoder(tmp_path)


@pytest.mark.heavy
def test_a_network_without_statistics_is_refused(networks: Path, tmp_path: Path) -> None:
    shutil.copytree(networks / "AutoencoderKLHunyuanVideo", tmp_path / "bare")
    (tmp_path / "bare" / "codec.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"has no codec.json. .*kinescale codec-statistics"):
        compose_run(["horizon.steps=1", "codec=diffusers", f"codec.path={tmp_path / 'bare'}"])


def test_the_command_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data.root=x"]) == 2
    assert "codec.path=: must name a folder" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "kinescale codec-statistics" in capsys.readouterr().out
