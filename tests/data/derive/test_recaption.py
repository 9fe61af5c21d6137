"""Other captions, the same data: payloads, truth and order stay, old captions follow the policy."""

import json
from pathlib import Path

import pytest

from data.dataset.shards import (
    ShardWriter,
    read_index,
    read_payload,
    read_truth,
    write_manifest,
)
from data.derive.recaption import Existing, NewCaption, Policy, recaption
from tests.data.conftest import encode, meta, paint, png

OLD = [
    ("", ""),
    ("three small words", ""),
    ("a long caption of a clip that has more than five words", ""),
    ("a long caption of a clip that has more than five words", "short one"),
]


def silent(done: float, total: float, text: str) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two splits: clips with truth, and an image."""
    root = tmp_path_factory.mktemp("source") / "clips"
    with ShardWriter(root, "train", 10_000) as writer:
        for i, (caption, short) in enumerate(OLD):
            made = meta(f"clip-{i}", "video", (5, 32, 48), caption=caption, short_caption=short)
            made |= {"scores": {"motion": 0.5}, "shots": [2]}
            truth = {"attributes": {"floor": f"red {i}"}, "world": "rooms"}
            writer.write(made, encode(paint(5, 32, 48, seed=i)), "mp4", truth)
    with ShardWriter(root, "val", 10_000) as writer:
        writer.write(meta("still", "image", (1, 32, 48)), png(paint(1, 32, 48)), "png")
    write_manifest(root, {"name": "painted", "licences": {"CC0": 5}})
    return root


def captions(count: int = 4) -> dict:
    new = {
        ("train", f"clip-{i}"): NewCaption(f"dense {i}", f"new short {i}", {"caption_logprob": -i})
        for i in range(count)
    }
    return new | {("val", "still"): NewCaption("a dense still")}


@pytest.mark.parametrize(
    ("existing", "shorts"),
    [
        (Existing.short, ["new short 0", "three small words", "new short 2", "short one"]),
        (Existing.drop, ["new short 0", "new short 1", "new short 2", "new short 3"]),
    ],
)
def test_both_captions_lie_beside_the_same_payload_and_truth(
    source: Path, tmp_path: Path, existing: Existing, shorts: list[str]
) -> None:
    told = {"kind": "weights", "weights_sha256": "abc"}
    manifest = recaption(source, tmp_path, captions(), Policy(existing, 5), told, silent)
    before, after = read_index(source, "train"), read_index(tmp_path, "train")
    assert [i.key for i in after] == [i.key for i in before]
    assert [i.short_caption for i in after] == shorts
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        assert new.caption == f"dense {i}"
        assert new.scores == {"motion": 0.5, "caption_logprob": -i}
        assert new.shots == old.shots
        assert read_payload(tmp_path, "train", new) == read_payload(source, "train", old)
        assert read_truth(tmp_path, "train", new) == read_truth(source, "train", old)
    (still,) = read_index(tmp_path, "val")
    assert still.media == "image"
    assert still.caption == "a dense still"
    assert manifest["licences"] == {"CC0": 5}
    about = manifest["recaptioned"]
    assert about["weights_sha256"] == "abc"
    assert about["captions_written"] == 5
    assert sum(about["short_captions"].values()) == 5
    assert manifest["shards"].keys() == {"train", "val"}


def test_text_is_written_and_no_payload(source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.glob("*/*")}
    manifest = recaption(source, tmp_path, captions(), Policy(), {}, silent)
    shards = list(tmp_path.glob("*/*.tar"))
    assert len(shards) > 1
    assert all(path.is_symlink() and path.resolve().parent.parent == source for path in shards)
    assert {path: path.stat().st_mtime_ns for path in source.glob("*/*")} == before
    assert manifest["shards"] == json.loads((source / "manifest.json").read_text())["shards"]


def test_a_clip_without_a_new_caption_keeps_its_own(source: Path, tmp_path: Path) -> None:
    manifest = recaption(source, tmp_path, captions(2), Policy(), {}, silent)
    after = read_index(tmp_path, "train")
    assert [(i.caption, i.short_caption) for i in after[2:]] == OLD[2:]
    assert manifest["recaptioned"]["captions_left"] == 2


def test_an_equal_result_is_kept_and_a_stale_or_unfinished_one_made_anew(
    source: Path, tmp_path: Path
) -> None:
    def state() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/index.jsonl"))]

    first = recaption(source, tmp_path, captions(), Policy(), {}, silent)
    times = state()
    assert recaption(source, tmp_path, captions(), Policy(), {}, silent) == first
    assert state() == times
    other = captions() | {("val", "still"): NewCaption("another still")}
    recaption(source, tmp_path, other, Policy(), {}, silent)
    assert read_index(tmp_path, "val")[0].caption == "another still"
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "captions.jsonl").touch()
    assert recaption(source, tmp_path, captions(), Policy(), {}, silent) == first


def test_other_data_sets_are_never_overwritten(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with ShardWriter(other, "train", 10_000) as writer:
        writer.write(meta("a", "image", (1, 32, 48)), png(paint(1, 32, 48)), "png")
    for path in (source, other):
        with pytest.raises(ValueError, match=r"out=.*Give another folder"):
            recaption(source, path, captions(), Policy(), {}, silent)
    write_manifest(other, {"name": "theirs"})
    with pytest.raises(ValueError, match=r"holds another data set"):
        recaption(source, other, captions(), Policy(), {}, silent)
    assert read_index(other, "train")[0].key == "a"


def test_latents_are_refused(latent_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "latents"
    (root / "train").mkdir(parents=True)
    for path in (latent_root / "train").iterdir():
        (root / "train" / path.name).write_bytes(path.read_bytes())
    write_manifest(root, {})
    new = {("train", i.key): NewCaption("x") for i in read_index(root, "train")}
    with pytest.raises(ValueError, match=r"media=latent: .*Caption the clips, then encode"):
        recaption(root, tmp_path / "out", new, Policy(), {}, silent)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_bad_settings_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"short_words=-1"):
        recaption(source, tmp_path, {}, Policy(short_words=-1), {}, silent)
    with pytest.raises(ValueError, match=r"holds no split"):
        recaption(tmp_path / "none", tmp_path, {}, Policy(), {}, silent)
