"""A sample or a shard that is not what it should be is refused by name; the others are indexed."""

import hashlib
import json
import math
import os
import tarfile

import pytest

from data.dataset.shards import read_index
from data.derive.index import index_shards
from tests.data.conftest import add, paint, png

SIZES = {"num_frames": 1, "height": 20, "width": 30, "fps": 0.0}


def deep(levels):
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"height": "20"}, "height='20': must be an integer"),
        ({"num_frames": "1"}, "num_frames='1': must be an integer"),
        ({"num_frames": "5", "shots": [1]}, "num_frames='5': must be an integer"),
        ({"num_frames": -1}, "num_frames=-1: must be an integer"),
        ({"num_frames": 1.5, "fps": 2.0}, "num_frames=1.5: must be an integer"),
        ({"num_frames": None}, "num_frames=None: must be an integer"),
        ({"num_frames": True}, "num_frames=True: must be an integer"),
        ({"width": 10**400}, "must be an integer"),
        ({"width": 2**53 + 1}, "must be an integer"),
        ({"fps": math.nan}, "fps=nan: must be a positive number"),
        ({"fps": math.inf}, "fps=inf: must be a positive number"),
        ({"fps": [24]}, "fps=[24]: must be a positive number"),
        ({"fps": "fast"}, "fps='fast': must be a positive number"),
        ({"fps": {}}, "fps={}: must be a positive number"),
        ({"fps": 10**400}, "must be a positive number"),
        ({"fps": 5e-324}, "duration_seconds=inf: must be a number"),
        ({"caption": ["a", "b"]}, "caption=['a', 'b']: must be text"),
        ({"caption": 7}, "caption=7: must be text"),
        ({"caption": "\ud800"}, "surrogates not allowed"),
        ({"source": "\ud800"}, "unwritable .json"),
        ({"licence": {"name": "CC0"}}, "must be text"),
        ({"rendered": "no"}, "rendered='no': must be true or false"),
        ({"scores": {"motion": 10**400}}, "must be names with finite numbers"),
        ({"shots": {"1": 2}}, "must be rising frame numbers"),
        ({"original": {"fps": math.nan}}, "unwritable .json"),
        ({"original": 3}, "original=3: must be a JSON object"),
        ({"height": deep(900)}, "must be an integer"),
    ],
)
def test_a_wrong_type_in_our_own_samples_json_is_a_refused_sample(tmp_path, said, reason):
    """Beside it, the other samples are indexed and the index can be read."""
    content = png(paint(1, 20, 30))
    said = {"sha256": hashlib.sha256(content).hexdigest()} | said
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "a.tar", "w") as tar:
        add(tar, "bad.png", content)
        add(tar, "bad.json", json.dumps(SIZES | said).encode())
        add(tar, "good.png", content)
        add(tar, "good.json", json.dumps(SIZES).encode())
    report = index_shards(tmp_path, "train")
    assert [info.key for info in read_index(tmp_path, "train")] == ["good"]
    ((name, why),) = report.refused
    assert name == "a.tar/bad"
    assert reason in why
    (line,) = (tmp_path / "train" / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {"name": name, "reason": why}


@pytest.mark.parametrize(
    "said",
    [
        {"height": "20", "num_frames": None, "width": 10**400},
        {"fps": math.nan, "num_frames": True, "duration_seconds": "1.0"},
        {"fps": "30000/1001", "height": -1, "rendered": "no"},
        {"fps": [24], "shots": {"1": 2}, "scores": {"aesthetic": 5.1, "tags": ["a"]}},
        {"licence": {"name": "CC0"}, "source": None, "original": "x.mp4"},
        {"key": "b", "shard": "../../x.tar", "offset": -1, "sha256": "0", "media": "latents"},
    ],
)
def test_a_wrong_type_in_a_foreign_samples_json_costs_no_sample(tmp_path, said):
    """Sizes are measured, and whatever else is said travels along."""
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "a.tar", "w") as tar:
        add(tar, "odd.png", png(paint(1, 20, 30)))
        add(tar, "odd.json", json.dumps(said).encode())
    report = index_shards(tmp_path, "train")
    assert report.refused == []
    (info,) = read_index(tmp_path, "train")
    assert (info.key, info.media, info.num_frames, info.height, info.width) == (
        *("odd", "image"),
        *(1, 20, 30),
    )
    assert (info.shard, info.source, info.licence) == ("a.tar", "a/odd", "unknown")


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000 + b"]" * 100_000, b"[1]", b"7", b"", b"\xff", b'{"height":' + b"9" * 9000],
)
def test_a_samples_json_that_is_no_object_is_a_refused_sample(tmp_path, text):
    content = png(paint(1, 20, 30))
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "a.tar", "w") as tar:
        add(tar, "bad.json", text)
        add(tar, "bad.png", content)
        add(tar, "good.png", content)
    report = index_shards(tmp_path, "train")
    assert [info.key for info in report.infos] == ["good"]
    assert [name for name, _ in report.refused] == ["a.tar/bad"]


@pytest.mark.heavy
@pytest.mark.parametrize("levels", [50, 400, 900, 950, 970, 980, 990])
def test_a_deep_json_is_written_whole_or_refused_and_ends_no_index(tmp_path, levels):
    content = png(paint(1, 20, 30))
    original = '{"a":' + "[" * levels + "]" * levels + "}"
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "a.tar", "w") as tar:
        add(tar, "deep.json", (json.dumps(SIZES)[:-1] + f', "original": {original}}}').encode())
        add(tar, "deep.png", content)
        add(tar, "good.png", content)
    report = index_shards(tmp_path, "train")
    kept = [info.key for info in read_index(tmp_path, "train")]
    assert sorted(kept + [name.removeprefix("a.tar/") for name, _ in report.refused]) == [
        "deep",
        "good",
    ]
    assert "good" in kept


def test_shards_and_members_that_cannot_be_read_or_named_are_refused(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    content = png(paint(1, 20, 30))
    with tarfile.open(folder / "a.tar", "w") as tar:
        add(tar, os.fsdecode(b"caf\xe9.png"), content)
        add(tar, "README", b"words")
        add(tar, "good.png", content)
    (folder / os.fsdecode(b"caf\xe9.tar")).write_bytes((folder / "a.tar").read_bytes())
    os.mkfifo(folder / "pipe.tar")
    (folder / "gone.tar").symlink_to("nowhere")
    (folder / "loop.tar").symlink_to("loop.tar")
    (folder / "folder.tar").mkdir()
    report = index_shards(tmp_path, "train")
    assert [info.key for info in report.infos] == ["good"]
    reasons = dict(report.refused)
    assert reasons.pop("a.tar/caf\\xe9.png") == "name is not UTF-8"
    assert reasons.pop("a.tar/README") == "no extension, so that it belongs to no sample"
    assert reasons.pop("caf\\xe9.tar") == "damaged tar: its name is not UTF-8"
    assert sorted(reasons) == ["folder.tar", "gone.tar", "loop.tar", "pipe.tar"]
    assert all(reason.startswith("damaged tar: ") for reason in reasons.values())
    (folder / "refused.jsonl").read_bytes().decode("utf-8")
