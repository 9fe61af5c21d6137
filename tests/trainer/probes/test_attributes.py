"""The attribute probe: what it learns from the truth, what it refuses to use, what it measures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset.shards import ShardWriter, read_index, write_manifest
from data.media.h264 import encode_h264
from data.worlds.palette import COLOURS
from data.worlds.truth import CameraTruth, ShotTruth, Truth
from trainer.identity import freeze
from trainer.probes.attributes import check, describe, labels_of, learnable, main, train_classifier

from ..conftest import compose_smoke

FLOORS, SKIES = ("red", "green", "blue"), ("pale", "dark")
SKY_LEVELS = {"pale": 225, "dark": 25}


def film(seed: int) -> tuple[np.ndarray, dict, str]:
    """Return a clip of a floor under a sky; its sound cannot be seen."""
    rng = np.random.default_rng(seed)
    floor, sky, sound = (str(rng.choice(n)) for n in (FLOORS, SKIES, ("loud", "quiet")))
    frames = np.full((5, 32, 48, 3), SKY_LEVELS[sky], np.uint8)
    frames[:, int(rng.integers(12, 22)) :] = np.array(COLOURS[floor]) * 255 * rng.uniform(0.6, 1)
    attributes: dict = {"floor": f"{floor} and white tiled", "sky": sky, "sound": sound}
    attributes |= {"camera": ["stands still"], "objects": []}
    shots = [ShotTruth(0, 5, "stands still")]
    camera = CameraTruth("static", "stands still", [60.0, 50.0], [[0.0] * 6] * 5)
    truth = Truth("rooms", "flat", camera, [], [], attributes, shots).to_json()
    return frames, truth, f"A {floor} floor under a {sky} sky."


@pytest.fixture(scope="module")
def clips() -> list[tuple[np.ndarray, dict, str]]:
    return [film(seed) for seed in range(240)]


def test_a_phrase_counts_by_its_first_colour_and_a_list_by_its_first_item(clips) -> None:
    labels = labels_of(clips[0][1])
    assert labels["rooms floor"] in FLOORS
    assert labels["rooms sky"] in SKIES
    assert labels["rooms camera"] == "stands still"
    assert "rooms objects" not in labels
    assert labels["world"] == "rooms"


def test_only_attributes_with_a_choice_are_learned(clips) -> None:
    found = learnable([labels_of(truth) for _, truth, _ in clips])
    assert set(found) == {"rooms floor", "rooms sky", "rooms sound"}
    assert found["rooms floor"] == sorted(FLOORS)
    with pytest.raises(ValueError, match="no attribute has two values"):
        train_classifier(torch.zeros(3, 8), [{"rooms floor": "red"}] * 3)


@pytest.mark.heavy
def test_it_tells_what_can_be_seen_and_does_not_use_the_rest(clips) -> None:
    seen = torch.stack([describe(frames) for frames, _, _ in clips])
    labels = [labels_of(truth) for _, truth, _ in clips]
    classifier = train_classifier(seen[:180], labels[:180])
    rows = {r["measure"]: r for r in check(classifier, seen[180:], labels[180:], labels[:180])}
    for name in ("rooms floor", "rooms sky"):
        assert rows[name]["value"] > 0.9
        assert rows[name]["used"]
    assert not rows["rooms sound"]["used"]
    again = train_classifier(seen[:180], labels[:180])
    assert again.name(seen[:9]) == classifier.name(seen[:9])


@pytest.mark.heavy
def test_the_command_marks_a_clip_that_shows_another_floor(clips, tmp_path: Path) -> None:
    root = tmp_path / "clips"
    for split, chosen in (("train", range(180)), ("val_worlds", range(180, 240))):
        with ShardWriter(root, split, 4_000_000) as writer:
            for number in chosen:
                frames, truth, caption = clips[number]
                meta = {
                    "key": f"clip-{number}", "media": "video", "num_frames": 5, "height": 32,
                    "width": 48, "fps": 12.0, "duration_seconds": 5 / 12, "caption": caption,
                    "source": f"rooms/{number}", "licence": "CC0", "rendered": True, "original": {},
                }  # fmt: skip
                writer.write(meta, encode_h264(frames, 12.0), "mp4", truth)
    write_manifest(root, {"name": "floors"})
    freeze(compose_smoke(root), tmp_path / "run")
    wanted = [labels_of(truth)["rooms floor"] for _, truth, _ in clips]
    first = 180
    other = next(n for n in range(181, 240) if wanted[n] != wanted[first])
    asked = []
    for name, number in (("right", first), ("wrong", other)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_h264(clips[number][0], 12.0))
        asked.append({"file": str(path), "key": f"clip-{first}"})
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    assert len(read_index(root, "val_worlds")) == 60
    settings = [f"run={tmp_path}/run", f"clips={tmp_path}/asked.json", f"root={root}"]
    assert main([*settings, f"out={tmp_path}/probe.json", "train_clips=180"]) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    values = [clip["values"] for clip in found["clips"]]
    # One prompt alone says little of one attribute; the mean over attributes is kept.
    assert [set(value) for value in values] == [{"attributes right"}] * 2
    assert values[0]["attributes right"] == 1.0
    assert values[1]["attributes right"] < 1.0
    assert "floor right" in found["notes"][-1]
    assert found["measures"][-1] == "attributes right"
