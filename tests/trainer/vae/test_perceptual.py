"""The perceptual encoder learns what a simulator knows of its frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.dataset.shards import ShardWriter, write_manifest
from data.media.h264 import encode_h264
from trainer.config import RunKind
from trainer.kinds import KINDS, freeze_any
from trainer.train import main
from trainer.vae.config import compose_perceptual, compose_vae
from trainer.vae.labels import choose_labels, frame_labels
from trainer.vae.perceptual import train_perceptual
from trainer.vae.perceptual_files import load_perceptual
from trainer.vae.train import train_vae

COLOURS = {"red": (200, 40, 30), "green": (40, 180, 60)}


def truth(colour: str, frames: int) -> dict:
    return {
        "world": "rooms",
        "camera": {"kind": "pan"},
        "attributes": {"floor": colour, "around": ["trees", "walls"], "actions": ["walks"]},
        "objects": [
            {
                "kind": "ball",
                "colour": "blue",
                "in_frame": [1.0] + [0.1] * (frames - 1),
                "visible": [1.0] * frames,
            }
        ],
    }


def write_rooms(root: Path, known: bool = True) -> Path:
    """Write clips of red and of green rooms."""
    for split, count in (("train", 16), ("val_worlds", 6)):
        with ShardWriter(root, split, 10**6) as writer:
            for i in range(count):
                colour = "red" if i % 2 else "green"
                draw = np.random.default_rng(i if split == "train" else 99 + i)
                pixels = np.array(COLOURS[colour]) + draw.integers(-30, 30, (5, 32, 32, 3))
                meta = {
                    "key": f"{split}-{i}",
                    "media": "video",
                    "num_frames": 5,
                    "height": 32,
                    "width": 32,
                    "fps": 12.0,
                    "duration_seconds": 5 / 12,
                    "caption": "a room",
                    "source": f"rooms/{split}-{i}",
                    "licence": "CC0",
                    "rendered": True,
                    "original": {},
                }
                payload = encode_h264(pixels.clip(0, 255).astype(np.uint8), 12.0)
                writer.write(meta, payload, "mp4", truth(colour, 5) if known else None)
    write_manifest(root, {"name": "rooms"})
    return root


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the rooms."""
    return write_rooms(tmp_path_factory.mktemp("rooms"))


SMALL = ["perceptual.widths=[6,8]", "data.pack_tokens=64", "optim.lr=2e-2", "parallel.device=cpu"]


@pytest.fixture(scope="module")
def encoder(rooms: Path, group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an encoder trained on the rooms."""
    root = tmp_path_factory.mktemp("perceptual")
    run = compose_perceptual([*SMALL, f"data.root={rooms}", f"run_root={root}", "steps=30"])
    folder = freeze_any(run)
    result = train_perceptual(run, folder, lambda: False)
    assert result is not None
    assert result["loss"] == result["heldout_nats_a_label"]
    assert result["loss"] < 0.8 * result["base_rate_nats_a_label"]
    assert set(KINDS[RunKind.perceptual].columns) <= set(result)
    assert result["accuracy"] > result["majority_accuracy"]
    return folder / "encoder"


@pytest.mark.heavy
@pytest.mark.usefixtures("group", "handlers")
def test_the_command_of_all_runs_trains_a_frozen_encoder(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, f"data.root={rooms}", f"run_root={tmp_path}", "steps=1"]
    assert main(["kind=perceptual", *words]) == 0
    assert "held out:" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert (folder / "encoder").is_dir()


def test_labels_are_what_can_be_seen_in_the_frame() -> None:
    known = truth("red", 3)
    first, later = frame_labels(known, 0), frame_labels(known, 2)
    assert {"world=rooms", "camera=pan", "floor=red", "around=trees"} <= later
    assert first - later == {"sees=ball", "sees=blue ball", "sees=blue"}
    assert not any(label.startswith("actions") for label in first)


def test_labels_that_are_rare_or_always_there_are_left_out() -> None:
    frames = [{"always", "half"} if i % 2 else {"always"} for i in range(99)] + [{"rare"}]
    assert choose_labels(frames, 8, 0.02) == ["half"]
    with pytest.raises(ValueError, match=r"min_share=0.9: no label is that common"):
        choose_labels([{"a"}, {"b"}], 8, 0.9)


@pytest.mark.heavy
def test_an_encoder_tells_red_rooms_from_green_ones(encoder: Path) -> None:
    network = load_perceptual(encoder)
    names = network.config.outputs
    for colour, other in (("red", "green"), ("green", "red")):
        pixels = torch.tensor(COLOURS[colour]).expand(1, 32, 32, 3) / 127.5 - 1
        logits = network(pixels)[0]
        assert logits[names.index(f"floor={colour}")] > logits[names.index(f"floor={other}")]


@pytest.mark.heavy
def test_a_network_records_the_digest_of_the_encoder_in_its_loss(
    encoder: Path, rooms: Path, tmp_path: Path, group: None
) -> None:
    loss = ["loss.perceptual=0.1", f"loss.perceptual_path={encoder}", "steps=1", "components=0"]
    where = [f"data.root={rooms}", f"run_root={tmp_path}", "validation.splits=[val_worlds]"]
    run = compose_vae(["experiment=vae_smoke", *where, *loss])
    folder = freeze_any(run)
    assert train_vae(run, folder, lambda: False) is not None
    card = json.loads((folder / "codec" / "codec.json").read_text())
    wanted = json.loads((encoder / "codec.json").read_text())["digest"]
    assert card["perceptual_digest"] == wanted
    assert '"perceptual":' in (folder / "metrics.jsonl").read_text()


@pytest.mark.heavy
def test_another_file_than_the_trained_one_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no perceptual encoder"):
        load_perceptual(tmp_path)
    card = json.loads((encoder / "codec.json").read_text())
    (tmp_path / "codec.json").write_text(json.dumps(card))
    weights = load_file(encoder / "weights.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"is not what codec.json says"):
        load_perceptual(tmp_path)
    (tmp_path / "codec.json").write_text(json.dumps(card | {"kind": "vae"}))
    with pytest.raises(ValueError, match=r"holds another network"):
        load_perceptual(tmp_path)


def test_clips_of_which_nothing_is_known_are_refused(
    tmp_path: Path, group: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_rooms(tmp_path / "data", known=False)
    assert main(["kind=perceptual", *SMALL, f"data.root={root}", f"run_root={tmp_path}"]) == 2
    assert "nothing is known of its clips" in capsys.readouterr().err
