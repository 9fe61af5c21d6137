"""The command that films datasets: what it writes, that it continues, and what it refuses."""

import numpy as np
import pytest

from data.dataset.sample import world_of
from data.dataset.shards import read_index, read_payload, read_truth
from data.decode.decoders import PyAVDecoder
from data.worlds.__main__ import main
from data.worlds.plan import VAL_SEED
from data.worlds.tiny.film import film
from data.worlds.truth import check_truth

SMALL = ["num_train_clips=6", "num_val_clips=3"]
TWO_WORLDS = ["worlds.doom=0", "worlds.craft=0", "ingest.num_workers=1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    assert main([f"root={folder}", *SMALL, *TWO_WORLDS]) == 0
    return folder


@pytest.mark.heavy
def test_every_clip_comes_with_both_captions_and_its_truth(root):
    infos = {split: read_index(root / "video", split) for split in ("train", "val_worlds")}
    assert {split: len(found) for split, found in infos.items()} == {"train": 6, "val_worlds": 3}
    worlds = set()
    for split, found in infos.items():
        for info in found:
            truth = read_truth(root / "video", split, info)
            check_truth(truth)
            worlds.add(truth["world"])
            assert len(truth["camera"]["poses"]) == info.num_frames
            assert len(info.caption) > len(info.short_caption) > 10
            assert info.shots == [shot["start"] for shot in truth["shots"][1:]]
    assert worlds == {"rooms", "physics"}
    sources = [{info.source for info in found} for found in infos.values()]
    assert not set.intersection(*sources)


@pytest.mark.heavy
def test_a_finished_dataset_is_found_again_and_other_settings_need_a_word(root, capsys):
    before = (root / "video/manifest.json").stat().st_mtime_ns
    assert main([f"root={root}", *SMALL, *TWO_WORLDS]) == 0
    assert main([f"root={root}", *SMALL, *TWO_WORLDS, "seed=1"]) == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert (root / "video/manifest.json").stat().st_mtime_ns == before


@pytest.mark.heavy
def test_the_framing_preset_films_wide_and_tall_clips_of_one_subject(tmp_path):
    arguments = ["preset=framing", "ingest.num_workers=1", *SMALL]
    assert main([f"root={tmp_path}", *arguments]) == 0
    infos = read_index(tmp_path / "video", "train")
    assert len(infos) == 6
    for info in infos:
        truth = read_truth(tmp_path / "video", "train", info)
        assert info.height != info.width
        assert truth["objects"][0]["in_frame"] == [1.0] * info.num_frames


@pytest.mark.heavy
def test_the_tiny_preset_stores_every_pixel_and_the_law_that_is_off(tmp_path):
    arguments = ["preset=tiny", "lawless=all", "ingest.num_workers=1", "tiny.uniform_unseen_1=1"]
    counts = ["num_train_clips=22", "num_val_clips=11"]
    assert main([f"root={tmp_path}", *arguments, *counts]) == 0
    root = tmp_path / "video"
    found = {split: read_index(root, split) for split in ("train", "val_worlds")}
    assert [len(infos) for infos in found.values()] == [22, 11]
    assert len({world_of(info.source) for info in found["train"]}) == 11
    for split, infos in found.items():
        for info in infos:
            name, index = world_of(info.source), int(info.source.rsplit("-", 1)[1])
            frames = PyAVDecoder().decode(read_payload(root, split, info))
            assert np.array_equal(frames, film(name, 0, index, "all").frames)
            assert read_truth(root, split, info)["attributes"]["lawless"] == "all"
            assert (index >= VAL_SEED) == (split == "val_worlds")


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("worlds.moon=1", "worlds.moon=1.0: is no world. Use rooms"),
        ("preset=moon", "preset=moon"),
        ("preset=tiny tiny.moon=1", "world=moon: is no tiny world. Use strip"),
        ("preset=tiny lawless=taste", "lawless=taste: is no law of strip, which has existence"),
        ("num_val_clips=0", "num_val_clips=0: must be at least 1"),
        ("rot=here", "rot=here: unknown key. Did you mean root? Allowed keys: root, preset"),
    ],
)
def test_errors_name_the_key_and_the_remedy(tmp_path, capsys, argument, rule):
    assert main([f"root={tmp_path}", *argument.split()]) == 2
    assert rule in capsys.readouterr().err


def test_help_lists_the_keys_with_their_defaults(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "num_train_clips=3000" in text
    assert "preset=framing" in text
