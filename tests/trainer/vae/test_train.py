"""Training a compression network: the command, resume, what it leaves, and who refuses it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.loading.loader import load_fixed
from models.codec.codec import VaeCodec
from models.codec.lpips import Lpips
from models.codec.vae import Vae
from models.config import VaeConfig
from trainer.codec.build import load_codec, load_vae
from trainer.codec.files import fingerprint
from trainer.config import RunKind, compose_run, load_run
from trainer.diffusion.encoding import check_encoding
from trainer.encode.encode import encode_dataset
from trainer.identity import freeze, identity
from trainer.kinds import KINDS, freeze_any
from trainer.run.metrics import read_metrics
from trainer.train import main
from trainer.vae.config import VaeRun, compose_vae
from trainer.vae.losses import Networks
from trainer.vae.lpips import load_lpips
from trainer.vae.train import VaeTask, train_vae

from ..encode.test_encode import TEXT, write_clips

KEEP = ["experiment=vae_smoke", "validation.splits=[val]", "components=2"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny clip data set."""
    return write_clips(tmp_path_factory.mktemp("clips"))


def smoke(clips: Path, root: Path, *more: str) -> list[str]:
    return [*KEEP, f"data.root={clips}", f"run_root={root}", *more]


def train(clips: Path, root: Path, *more: str) -> tuple[VaeRun, Path, dict]:
    run = compose_vae(smoke(clips, root, *more))
    folder = freeze_any(run)
    result = train_vae(run, folder, lambda: False)
    assert result is not None
    return run, folder, result


@pytest.fixture(scope="module")
def trained(clips: Path, group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished training."""
    return train(clips, tmp_path_factory.mktemp("vae"))[1]


@pytest.fixture(scope="module")
def codec(trained: Path) -> Path:
    """Return the folder of the network that it left."""
    return trained / "codec"


@pytest.mark.heavy
def test_a_training_leaves_a_network_with_its_statistics(trained: Path, clips: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    card = json.loads((trained / "codec" / "codec.json").read_text())
    assert result["status"] == "finished"
    assert result["digest"] == card["digest"]
    assert set(result["validation"]["val"]) == {"vae", "plain"}
    assert set(KINDS[RunKind.codec].columns) <= set(result)
    assert result["loss"] == pytest.approx(10 ** (-result["validation"]["val"]["vae"]["psnr"] / 10))
    assert max(card["spread"]) == 1.0
    run = compose_run([f"data.root={clips}", "horizon.steps=1", *codec_of(trained / "codec")])
    loaded, values = load_codec(run.codec), []
    for sample in load_fixed(run.data, "train", 0):
        mask = loaded.valid(*sample.frames.shape[:3])
        values.append(loaded.encode(sample.frames)[:, mask[0]])
    channels = torch.cat(values, dim=1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(channels.std(1, correction=0), torch.tensor(run.codec.spread))
    records = read_metrics(trained / "metrics.jsonl")
    assert {"l1", "squared", "kl", "train_loss", "lr"} <= set(records[-1])


def codec_of(folder: Path) -> list[str]:
    return ["codec=vae", f"codec.path={folder}"]


@pytest.mark.heavy
def test_the_command_trains_and_a_second_call_finds_it_finished(
    clips: Path, tmp_path: Path, group: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = smoke(clips, tmp_path, "steps=1")
    assert main(arguments) == 0
    assert "dB" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "is finished" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert main(["--run", str(folder)]) == 0


@pytest.mark.heavy
def test_a_stopped_training_resumes_bit_by_bit(
    clips: Path, trained: Path, tmp_path: Path, group: None
) -> None:
    run = compose_vae(smoke(clips, tmp_path))
    folder = freeze_any(run)
    polls = iter([False, False, True, *[False] * 9])
    assert train_vae(run, folder, lambda: next(polls)) is None
    assert not (folder / "codec").exists()
    result = train_vae(run, folder, lambda: False)
    assert result is not None
    assert result["digest"] == json.loads((trained / "result.json").read_text())["digest"]


@pytest.mark.heavy
def test_a_training_may_start_from_another_network(
    clips: Path, trained: Path, tmp_path: Path, group: None
) -> None:
    for start, kind in ((trained / "codec", "codec"), (trained, "run")):
        run = compose_vae(smoke(clips, tmp_path, f"start={start}", f"name={kind}"))
        made = task(run, tmp_path / kind)
        expected = load_vae(trained / "codec").state_dict()
        found = made.networks.vae.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items()), kind
    other = compose_vae(smoke(clips, tmp_path, f"start={trained / 'codec'}", "vae.expansion=1"))
    with pytest.raises(ValueError, match=r"start=.*: holds a network of another shape"):
        task(other, tmp_path / "other")


def task(run: VaeRun, folder: Path) -> VaeTask:
    from data.loading.loader import Loader
    from trainer.parallel.mesh import alone

    loader = Loader(run.data, run.data.train_split, run.cell, run.seed, 0, 1)
    try:
        return VaeTask(run, folder, alone(), loader)
    finally:
        loader.close()


@pytest.mark.heavy
def test_the_adversarial_loss_trains_both_sides(clips: Path, tmp_path: Path, group: None) -> None:
    more = ["loss.adversarial=0.1", "loss.adversarial_start=0.4", "log_every=1", "steps=5"]
    run, folder, _ = train(clips, tmp_path, *more)
    records = read_metrics(folder / "metrics.jsonl")
    before, after = records[0], records[-1]
    assert before["discriminator"] == before["adversarial"] == 0.0
    assert after["discriminator"] > 0
    assert after["adversarial"] != 0
    assert Networks(run).discriminator is not None


def run_with(clips: Path, folder: Path, *more: str):
    return compose_run([f"data.root={clips}", "horizon.steps=1", *TEXT, *codec_of(folder), *more])


@pytest.mark.heavy
def test_a_run_takes_shape_and_statistics_from_the_networks_folder(
    clips: Path, codec: Path
) -> None:
    run, card = run_with(clips, codec), json.loads((codec / "codec.json").read_text())
    for key in ("stride", "channels", "mean", "scale", "spread", "digest"):
        assert getattr(run.codec, key) == card[key]
    assert run.model.values_per_token == 32
    assert run.model.spread == card["spread"]


@pytest.mark.heavy
def test_the_place_of_a_network_is_no_part_of_the_experiment(
    clips: Path, codec: Path, tmp_path: Path
) -> None:
    shutil.copytree(codec, tmp_path / "elsewhere")
    first, second = run_with(clips, codec), run_with(clips, tmp_path / "elsewhere")
    assert identity(first) == identity(second)
    assert first.codec.digest in json.dumps(identity(first))


@pytest.mark.heavy
def test_a_frozen_run_refuses_another_network(clips: Path, codec: Path, tmp_path: Path) -> None:
    place = tmp_path / "codec"
    shutil.copytree(codec, place)
    freeze(run_with(clips, place), tmp_path / "run")
    assert load_run(tmp_path / "run").codec.channels == 8
    card = json.loads((place / "codec.json").read_text())
    (place / "codec.json").write_text(json.dumps(card | {"digest": "0" * 64}))
    with pytest.raises(ValueError, match=r"codec.digest=.*: must equal 000000000000 of"):
        load_run(tmp_path / "run")


@pytest.mark.heavy
def test_damaged_weights_are_refused(clips: Path, codec: Path, tmp_path: Path) -> None:
    place = tmp_path / "codec"
    shutil.copytree(codec, place)
    run = run_with(clips, place)
    weights = load_file(place / "weights.safetensors")
    first = sorted(weights)[0]
    save_file(weights | {first: weights[first] + 1}, place / "weights.safetensors")
    with pytest.raises(ValueError, match=r"codec.digest=.* were replaced or damaged"):
        load_codec(run.codec)
    (place / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors: cannot be read"):
        load_codec(run.codec)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["codec=vae"], r"codec.path=: codec.kind=vae needs a folder"),
        (["codec=vae", "codec.path=nowhere"], r"codec.path=nowhere: must be a folder, here or"),
        (["codec.path=weights"], r"codec.path=weights: codec.kind=wavelet has no weights"),
    ],
)
def test_a_codec_that_is_not_there_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_run(["horizon.steps=1", *arguments])


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no codec.json. Train a network"):
        compose_run(["horizon.steps=1", *codec_of(tmp_path)])


@pytest.mark.heavy
def test_latents_are_keyed_by_the_network_that_made_them(
    clips: Path, codec: Path, tmp_path: Path
) -> None:
    run, out = run_with(clips, codec), tmp_path / "latents"
    manifest = encode_dataset(run, out)
    assert manifest["codec"] == fingerprint(run.codec)
    std = manifest["latent_statistics"]["std"]
    assert std == pytest.approx(run.codec.spread, abs=1e-3)
    latents = replace(run, data=replace(run.data, root=str(out)))
    check_encoding(latents)
    other = replace(latents, codec=replace(run.codec, digest="1" * 64))
    with pytest.raises(ValueError, match=r"codec.digest=1111.*must equal .* was encoded"):
        check_encoding(other)
    wavelet = compose_run([f"data.root={out}", "horizon.steps=1", *TEXT])
    with pytest.raises(ValueError, match=r"codec.kind=wavelet: must equal vae"):
        check_encoding(wavelet)


@pytest.mark.heavy
def test_the_codec_is_the_network(clips: Path, codec: Path) -> None:
    run = run_with(clips, codec)
    made = load_codec(run.codec)
    assert isinstance(made, VaeCodec)
    sample = load_fixed(run.data, "val", 1)[0]
    latent = made.encode(sample.frames)
    assert latent.shape == (8, *run.codec.latent_shape(*sample.frames.shape[:3]))
    assert made.decode(latent, *sample.frames.shape[1:3]).shape == sample.frames.shape


def test_latents_cannot_train_a_network(latents: Path, tmp_path: Path, group: None) -> None:
    run = compose_vae(smoke(latents, tmp_path))
    with pytest.raises(ValueError, match=r"holds latents, which cannot train what makes them"):
        train_vae(run, tmp_path, lambda: False)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=0", r"steps=0: must be at least 1"),
        ("loss.kl=-1", r"loss.kl=-1: must be at least 0"),
        ("loss.lpips=0.1", r"loss.lpips_path=: LPIPS needs a folder of weights"),
        ("vae.channels=99", r"vae.channels=99: must be at most 24"),
        (
            "loss.perceptal=1",
            r"loss.perceptal: unknown key. Did you mean perceptual. Allowed: adversarial",
        ),
        ("parallel.tp=2", r"parallel.tp,cp,pp=2,1,1: .*data-parallel only"),
        ("data.packs_per_step=3", None),
        ("loss.adversarial_start=1", r"loss.adversarial_start=1: must be below 1"),
    ],
)
def test_values_that_cannot_work_are_named(override: str, message: str | None) -> None:
    arguments = ["experiment=vae_smoke", override]
    if override.startswith(("parallel", "data")):
        arguments.append("parallel.processes=2")
    with pytest.raises(ValueError, match=message or r"packs_per_step=3: must be divisible by"):
        compose_vae(arguments)


@pytest.mark.heavy
@pytest.mark.usefixtures("group", "handlers")
def test_the_command_of_all_runs_trains_a_frozen_network(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = compose_vae(smoke(clips, tmp_path, "steps=1", "components=0"))
    folder = freeze_any(run)
    assert main(["--run", str(folder)]) == 0
    assert (folder / "codec" / "codec.json").is_file()
    assert "val: vae" in capsys.readouterr().err
    assert main(["--run", str(folder)]) == 0
    assert "is finished (result.json exists)" in capsys.readouterr().out


def test_lpips_comes_from_a_local_file_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss.lpips_path=.*: has no lpips.safetensors"):
        load_lpips(tmp_path)
    torch.manual_seed(0)
    network, stored = Lpips(), {}
    for i, place in enumerate((0, 3, 6, 8, 10)):
        layer = network.convolutions[i]
        stored[f"features.{place}.weight"] = layer.weight.detach()
        stored[f"features.{place}.bias"] = layer.bias.detach()
        stored[f"lin{i}.model.1.weight"] = torch.rand(1, layer.out_channels, 1, 1)
    save_file(stored, tmp_path / "lpips.safetensors")
    loaded = load_lpips(tmp_path)
    assert torch.equal(loaded.weights[2], stored["lin2.model.1.weight"].flatten())
    assert torch.equal(loaded.convolutions[1].weight, stored["features.3.weight"])
    del stored["lin3.model.1.weight"]
    save_file(stored, tmp_path / "lpips.safetensors")
    with pytest.raises(ValueError, match=r"lacks lin3.model.1.weight"):
        load_lpips(tmp_path)


def test_the_shipped_network_is_small_and_whole() -> None:
    run = compose_run(["horizon.steps=1", "codec=vae_tiny"])
    codec = load_codec(run.codec)
    assert isinstance(codec, VaeCodec)
    from trainer.codec.files import resolve

    folder = resolve("weights/vae_tiny")
    assert (folder / "weights.safetensors").stat().st_size < 5_000_000
    assert run.model.values_per_token == 32
    assert codec.vae.config == VaeConfig()
    assert isinstance(codec.vae, Vae)
