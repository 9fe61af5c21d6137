"""Shards of other tools are used as they are: keys, orders, captions, lengths of any kind."""

import hashlib
import json
import os
import tarfile

import numpy as np
import pytest

from data.config import DataConfig
from data.dataset.sample import is_key
from data.dataset.shards import read_index, read_manifest, read_payload
from data.decode.decoders import decode
from data.derive.index import IndexConfig, index_into, index_shards, main
from data.derive.members import Member, grouped
from data.engine.source import Notes
from data.ingest.inputs import find_entries
from data.loading.loader import Loader
from data.loading.reader import SampleReader
from tests.data.conftest import add, encode, paint, png

STILL = png(paint(1, 20, 30))
KEYS = [
    *("clip.v1.2", "videos/0001", "café_日本", "my clip 01", "-2Nh7_0:00:05.005_0:00:10.010"),
    *("a" * 90, "b" * 250, "000000000_00001", "<b>&", "new\nline"),
]


def write(path, *members):
    """Write a tar of (name, bytes or what JSON says)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            add(tar, name, content if isinstance(content, bytes) else json.dumps(content).encode())


def indexed(tmp_path, *members, **settings):
    """Index one shard; return what is said of its samples, by their foreign keys."""
    write(tmp_path / "in" / "00.tar", *members)
    settings = {"num_workers": 1, "timeout_seconds": 900.0} | settings
    report = index_into(IndexConfig(str(tmp_path / "in"), str(tmp_path / "out"), **settings))
    infos = read_index(tmp_path / "out", "train")
    return {info.original.get("key"): info for info in infos}, report


def test_a_key_of_any_characters_and_length_is_a_sample_with_its_words(tmp_path):
    told = [(f"{key}.{ext}", text) for key in KEYS for ext, text in
            (("png", STILL), ("txt", f"words of {key}".encode()))]  # fmt: skip
    found, report = indexed(tmp_path, *told)
    assert report.refused == []
    assert list(found) == KEYS
    assert all(is_key(info.key) for info in found.values())
    assert len({info.key for info in found.values()}) == len(KEYS)
    assert found["000000000_00001"].key == "000000000_00001"
    for key, info in found.items():
        assert info.caption == f"words of {' '.join(key.split())}"
        assert read_payload(tmp_path / "out", "train", info) == STILL


def test_members_that_are_no_neighbours_are_one_sample(tmp_path):
    found, report = indexed(
        tmp_path,
        *[(f"{i:04d}.png", STILL) for i in range(4)],
        *[(f"./{i:04d}.json", {"caption": f"words {i}"}) for i in reversed(range(4))],
    )
    assert report.refused == []
    assert {key: info.caption for key, info in found.items()} == {
        f"{i:04d}": f"words {i}" for i in range(4)
    }


def test_keys_that_restart_in_each_shard_lose_no_sample_and_stay_what_they_are(tmp_path):
    for shard in "abc":
        write(tmp_path / "train" / f"{shard}.tar", *[(f"{i}.png", STILL) for i in range(3)])
    report = index_shards(tmp_path, "train")
    infos = read_index(tmp_path, "train")
    assert (report.refused, len({info.key for info in infos})) == ([], 9)
    assert [info.shard for info in infos] == [f"{s}.tar" for s in "abc" for _ in range(3)]
    assert [info.key for info in infos[:3]] == ["0", "1", "2"]
    index_shards(tmp_path, "train")
    assert read_index(tmp_path, "train") == infos


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        ("a.mp4 a.thumb.jpg a.jpg a.wav", {"a": "mp4 thumb.jpg jpg wav"}),
        ("a.mp4 a.caption.txt a.meta.json", {"a": "mp4 caption.txt meta.json"}),
        ("a.video.mp4 a.txt", {"a.video": "mp4 txt"}),
        ("a.rgb.mp4 a.depth.mp4 a.txt", {"a.rgb": "mp4", "a.depth": "mp4", "a": "txt"}),
        ("metas/a.json videos/a.mp4", {"videos/a": "mp4 json"}),
        ("captions/a.txt a.mp4", {"a": "mp4 txt"}),
        ("images/a.jpg videos/a.mp4", {"images/a": "jpg", "videos/a": "mp4"}),
        ("a.jpg a.1.jpg", {"a": "jpg", "a.1": "jpg"}),
        ("a.MP4 a.TXT", {"a": "mp4 txt"}),
        ("a.mp4 a.truth.json a.json", {"a": "mp4 truth.json json"}),
        ("a.v1.mp4 a.v2.mp4 a.v1.txt", {"a.v1": "mp4 txt", "a.v2": "mp4"}),
    ],
)
def test_members_belong_to_the_sample_that_their_names_say(tmp_path, names, samples):
    refused = []
    found = grouped(
        [Member(tmp_path / "s.tar", name, 0, 1) for name in names.split()],
        lambda *said: refused.append(said),
    )
    made = {group.key: set(group.members) for group in found}
    wanted = {key: set(members.split()) for key, members in samples.items()}
    assert (made, refused) == (wanted, [])


def test_a_second_member_of_a_name_is_refused_and_named(tmp_path):
    found, report = indexed(tmp_path, ("a.png", STILL), ("a.txt", b"x"), ("a.txt", b"y"))
    assert found["a"].caption == "x"
    assert report.refused == [("00.tar/a.txt", "duplicate member: its sample has a txt already")]


@pytest.mark.parametrize(
    ("said", "text", "caption", "captions"),
    [
        ({"caption": None}, b"", "", None),
        ({"caption": None}, b"words", "words", None),
        ({"caption": ["one", "two"]}, b"", "one", ["one", "two"]),
        ({"caption": '["one", "two"]'}, b"", "one", ["one", "two"]),
        ({"caption": [], "text": "words"}, b"", "words", None),
        ({"text": "words", "dense_caption": "many words"}, b"", "many words", None),
        ({"Prompt": "words\r\n"}, b"words", "words", None),
        ({"caption": "json"}, b"text", "json", ["json", "text"]),
        ({"caption": 7}, b"", "7", None),
        ({"caption": "word " * 20_000}, b"", ("word " * 20_000).strip(), None),
    ],
)
def test_captions_of_any_kind_and_length_are_kept(tmp_path, said, text, caption, captions):
    found, _ = indexed(tmp_path, ("a.png", STILL), ("a.json", said), ("a.txt", text))
    assert found["a"].caption == caption
    assert found["a"].original.get("captions") == captions


def test_what_the_json_says_travels_along_and_names_source_and_licence(tmp_path):
    said = {"url": "https://e/x?v=1", "license": "CC0", "aesthetic": 5.5, "clips": [[0, 1]],
            "short_caption": "few", "nothing": None, "loss": float("nan")}  # fmt: skip
    found, _ = indexed(tmp_path, ("a.png", STILL), ("a.json", said), ("a.cls", b"3"))
    info = found["a"]
    assert (info.source, info.licence, info.short_caption) == ("https://e/x?v=1", "CC0", "few")
    assert info.original["aesthetic"] == 5.5
    assert info.original["clips"] == [[0, 1]]
    assert info.original["cls"] == "3"
    assert not {"nothing", "loss"} & info.original.keys()


def test_sizes_that_the_json_gets_wrong_are_measured_and_said(tmp_path, capsys):
    said = {"width": 1920, "height": 20, "num_frames": 300}
    found, report = indexed(tmp_path, ("a.png", STILL), ("a.json", said), ("b.png", STILL))
    assert (found["a"].width, found["a"].original["said_width"]) == (30, 1920)
    (warning,) = report.warnings()
    assert warning.startswith("1 sample: its JSON is wrong (the first: a, num_frames=300 is 1")
    assert read_manifest(tmp_path / "out")["warnings"] == [warning]


@pytest.mark.heavy
def test_a_clip_of_any_length_is_cut_in_time_and_read_so(tmp_path):
    clip = encode(paint(24, 32, 48))
    found, report = indexed(tmp_path, ("a.mp4", clip), ("b.png", STILL))
    info = found["a"]
    assert (info.num_frames, info.payload_frames, info.duration_seconds) == (21, 24, 21 / 24)
    assert "1 sample: cut in time (the first: a, 21 of 24 frames)" in report.text()
    reader = SampleReader(DataConfig(root=str(tmp_path / "out")), "train", [info])
    try:
        (sample,) = reader.read([(info, 0)])
    finally:
        reader.close()
    whole = decode(clip, "video", "pyav")
    np.testing.assert_array_equal(sample.frames.numpy(), whole[:21])
    shorter, _ = indexed(tmp_path, ("a.mp4", clip), max_frames=12, step=2)
    assert shorter["a"].num_frames == 11


def test_compressed_tars_are_named_with_the_remedy(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "b.tar.gz").write_bytes(b"x")
    assert main([str(tmp_path), "train"]) == 2
    assert "b.tar.gz is compressed: gunzip -k it." in capsys.readouterr().err
    write(tmp_path / "train" / "a.tar", ("a.png", STILL))
    ((name, reason),) = index_shards(tmp_path, "train").refused
    assert (name, "gunzip -k b.tar.gz" in reason) == ("b.tar.gz", True)


@pytest.mark.parametrize("folder", ["metas", "words"])
def test_words_may_lie_in_tars_of_their_own(tmp_path, folder):
    root = tmp_path / "in"
    for shard in ("000000", "000001"):
        write(root / "video" / f"{shard}.tar", ("0.png", STILL), ("1.png", STILL))
        write(root / folder / f"{shard}.tar", *[(f"{i}.json", {"caption": f"{shard} {i}"})
              for i in (1, 0)])  # fmt: skip
    words = "" if folder == "metas" else str(root / folder)
    config = IndexConfig(str(root), str(tmp_path / "out"), captions=words)
    assert index_into(config).refused == []
    told = [info.caption for info in read_index(tmp_path / "out", "train")]
    assert told == ["000000 0", "000000 1", "000001 0", "000001 1"]


def test_out_holds_links_and_the_shards_stay_as_they_were(tmp_path, capsys):
    members = [(f"{i}.png", png(paint(1, 20, 30, seed=i))) for i in range(12)]
    write(tmp_path / "in" / "deep" / "00.tar", *members)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "in").rglob("*")}
    out = tmp_path / "out"
    words = [f"root={tmp_path}/in", f"out={out}", "split=by_source", "val_fraction=0.4", "--check"]
    assert main(words) == 0
    assert main(words) == 0  # again is harmless
    assert "indexed  12 samples" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "in").rglob("*")} == before
    splits = {split: read_index(out, split) for split in ("train", "val_real")}
    assert sorted(i.original["key"] for infos in splits.values() for i in infos) == sorted(
        str(i) for i in range(12)
    )
    assert (out / "train" / "deep_00.tar").is_symlink()
    shards = read_manifest(out)["shards"]
    digest = hashlib.sha256((tmp_path / "in/deep/00.tar").read_bytes()).hexdigest()
    assert shards["train"]["deep_00.tar"]["sha256"] == digest
    assert read_manifest(out)["splits"]["train"]["samples"] == len(splits["train"])
    loader = Loader(DataConfig(root=str(out), pool=1), "train", (4, 16, 16), 0, 0, 1)
    try:
        assert loader.next_step().packs[0].samples
    finally:
        loader.close()
    assert main([f"root={tmp_path}/in", f"out={tmp_path}/in/out"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "film.mp4").touch()
    assert main([f"root={tmp_path}/in", f"out={tmp_path}/other"]) == 2
    assert "holds something else" in capsys.readouterr().err


def bomb(path, nbytes):
    """Write a tar whose first header claims to be names and times of so many bytes."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, nbytes
    with open(path, "wb") as stream:
        stream.write(header.tobuf(tarfile.USTAR_FORMAT))
        os.truncate(path, nbytes + 2048)


def test_a_header_that_claims_megabytes_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "train").mkdir()
    bomb(tmp_path / "train" / "bomb.tar", 20_000_000)
    write(tmp_path / "train" / "good.tar", ("a.png", STILL))
    report = index_shards(tmp_path, "train")
    assert [info.key for info in report.infos] == ["a"]
    assert report.refused == [("bomb.tar", "damaged tar: holds a header of 20000000 bytes")]
    notes = Notes()
    entries = find_entries(tmp_path / "train", notes)
    assert [e.name for e in entries if e.name.endswith(".png")] == ["good.tar/a.png"]
    assert [r["reason"] for r in notes.rejects] == [
        "is no whole tar: holds a header of 20000000 bytes"
    ]
