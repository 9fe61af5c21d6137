"""Shards are plain webdataset, byte for byte reproducible, whole or absent, and verified."""

import json
import shutil
import subprocess
import sys
import tarfile

import pytest
from webdataset import tariterators

from data.dataset.sample import SampleInfo
from data.dataset.shards import (
    ShardWriter,
    read_index,
    read_manifest,
    read_payload,
    read_truth,
    write_manifest,
)
from data.derive.foreign import legal_key
from data.derive.index import index_shards, main
from tests.data.conftest import add, encode, info_of, meta, paint, png

SHAPE = (5, 32, 48)


def test_a_payload_is_read_back_by_its_offset_from_any_shard(clip_root):
    infos = read_index(clip_root, "train")
    assert len(infos) == 18
    assert len({info.shard for info in infos}) > 2
    for info in reversed(infos):
        payload = read_payload(clip_root, "train", info)
        with tarfile.open(clip_root / "train" / info.shard) as tar:
            name = next(n for n in tar.getnames() if n.startswith(info.key) and "json" not in n)
            assert tar.extractfile(name).read() == payload


def test_webdataset_reads_what_the_writer_wrote(clip_root):
    infos = {info.key: info for info in read_index(clip_root, "train")}
    seen = 0
    for path in (clip_root / "train").glob("*.tar"):
        # Opened here, because webdataset's own opener leaves its files to the garbage collector.
        with open(path, "rb") as stream:
            files = tariterators.tar_file_expander([{"stream": stream, "url": str(path)}])
            for sample in tariterators.group_by_keys(files):
                info = infos[sample["__key__"]]
                payload = sample["png"] if info.media == "image" else sample["mp4"]
                assert payload == read_payload(clip_root, "train", info)
                assert json.loads(sample["json"])["sha256"] == info.sha256
                seen += 1
    assert seen == 18


def test_equal_samples_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name, "train", 3000) as writer:
            for i in range(6):
                writer.write(meta(f"k{i}", "video", SHAPE, caption="é"), bytes([i]) * 1700, "mp4")
    files = sorted(p.name for p in (tmp_path / "a" / "train").iterdir())
    assert "index.jsonl" in files
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a/train" / file).read_bytes() == (
            tmp_path / "b/train" / file
        ).read_bytes()


@pytest.mark.parametrize("key", ["a/b", "..", "a.b", "", "/etc/passwd", "k" * 81, "a b", None, 7])
def test_keys_that_could_name_a_path_are_refused(tmp_path, key):
    with ShardWriter(tmp_path, "train", 3000) as writer:
        with pytest.raises(ValueError, match="key="):
            writer.write(meta(key, "video", SHAPE), b"x", "mp4")


def test_a_repeated_key_is_refused(tmp_path):
    with ShardWriter(tmp_path, "train", 10) as writer:
        writer.write(meta("a", "video", SHAPE), b"x", "mp4")
        with pytest.raises(ValueError, match="key='a': is already in this split"):
            writer.write(meta("a", "video", SHAPE), b"y", "mp4")


@pytest.mark.parametrize(
    "change",
    [
        {"media": "audio"},
        {"num_frames": 0},
        {"num_frames": 2.0},
        {"height": True},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"rendered": 1},
        {"caption": None},
        {"original": []},
        {"offset": -1},
        {"nbytes": 0},
        {"sha256": "xyz"},
        {"shard": "../other.tar"},
        {"short_caption": None},
        {"shots": [0]},
        {"shots": [3, 2]},
        {"shots": [5]},
        {"scores": {"motion": float("nan")}},
        {"truth_nbytes": -1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_bad_metadata_is_refused_by_name(change):
    values = info_of("a", "video", SHAPE).to_json() | change
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*must be"):
        SampleInfo.from_json(values)


def test_an_interrupted_writer_leaves_no_index_and_can_start_again(tmp_path):
    def fail_halfway():
        with ShardWriter(tmp_path, "train", 100) as writer:
            writer.write(meta("a", "video", SHAPE), b"x" * 200, "mp4")
            writer.write(meta("b", "video", SHAPE), b"x", "mp4")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail_halfway()
    with pytest.raises(ValueError, match=r"index\.jsonl is missing"):
        read_index(tmp_path, "train")
    assert not list(tmp_path.rglob("*.tmp"))
    with ShardWriter(tmp_path, "train", 10**6) as writer:
        writer.write(meta("c", "video", SHAPE), b"z", "mp4")
    assert [info.key for info in read_index(tmp_path, "train")] == ["c"]
    assert len(list(tmp_path.rglob("*.tar"))) == 1


def test_a_finished_split_is_not_overwritten(tmp_path):
    with ShardWriter(tmp_path, "train", 100) as writer:
        writer.write(meta("a", "video", SHAPE), b"x", "mp4")
    with pytest.raises(ValueError, match="already holds 1 shards"):
        ShardWriter(tmp_path, "train", 100)


def test_one_flipped_byte_is_found_and_named(tmp_path, rewrite):
    with ShardWriter(tmp_path, "train", 10**6) as writer:
        info = writer.write(meta("a", "video", SHAPE), b"x" * 900, "mp4")
    rewrite(tmp_path / "train" / info.shard, info.offset + 450, b"y")
    with pytest.raises(ValueError, match=r"'a' in shard shard-000000\.tar do not match"):
        read_payload(tmp_path, "train", info)
    assert len(read_payload(tmp_path, "train", info, verify=False)) == 900


def test_a_missing_or_shortened_shard_is_named(tmp_path):
    with ShardWriter(tmp_path, "train", 10**6) as writer:
        info = writer.write(meta("a", "video", SHAPE), b"x" * 9000, "mp4")
    path = tmp_path / "train" / info.shard
    path.write_bytes(path.read_bytes()[: info.offset + 10])
    with pytest.raises(ValueError, match="ends inside 'a'"):
        read_payload(tmp_path, "train", info)
    path.unlink()
    with pytest.raises(ValueError, match="is missing"):
        read_payload(tmp_path, "train", info)


def test_an_index_is_parsed_once_and_again_when_it_was_rewritten(clip_root, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(clip_root / "train", folder)
    first = read_index(tmp_path, "train")
    again = read_index(tmp_path, "train")
    assert again is not first
    assert all(a is b for a, b in zip(first, again, strict=True))
    again.clear()  # a caller's list is its own
    index = folder / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.unlink()
    index.write_text("".join(lines[:-1]))
    assert read_index(tmp_path, "train") == first[:-1]


@pytest.mark.parametrize("text", ["not json\n", "{}\n", "[1]\n", ""])
def test_a_damaged_index_is_named_with_its_line(tmp_path, text):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "index.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"index\.jsonl.*Rebuild it with"):
        read_index(tmp_path, "train")


def test_the_manifest_holds_the_checksum_of_every_shard(clip_root):
    write_manifest(clip_root, {"clips": 18})
    manifest = read_manifest(clip_root)
    assert manifest["clips"] == 18
    assert set(manifest["shards"]["train"]) == {p.name for p in clip_root.rglob("*.tar")}
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        read_manifest(clip_root / "train")


def test_reading_an_index_does_not_import_torch():
    code = "import sys, data.dataset.shards, data.loading.planner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture
def foreign_root(tmp_path):
    """Give a split that another tool, and an attacker, wrote."""
    clip = encode(paint(*SHAPE))
    folder = tmp_path / "train"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        add(tar, "c1.mp4", clip)
        add(tar, "c1.txt", b"a caption\n")
        add(tar, "../escape.mp4", clip)
        add(tar, "/abs.mp4", clip)
        add(tar, "link.mp4", b"", tarfile.SYMTYPE, "/etc/passwd")
        add(tar, "hard.mp4", b"", tarfile.LNKTYPE, "c1.mp4")
        add(tar, "pipe.mp4", b"", tarfile.FIFOTYPE)
        add(tar, "i1.png", png(paint(1, 20, 30)))
        add(tar, "i1.json", json.dumps({"caption": "still", "licence": "CC0-1.0"}).encode())
        add(tar, "i1.cls", b"7")
        add(tar, "bad.mp4", b"not a video")
        add(tar, "zero.mp4", b"")
        add(tar, "half.mp4", clip[: len(clip) // 2])
        add(tar, "long.png", png(paint(1, 20, 30)))
        add(tar, "long.txt", b"x" * 100_000)
        add(tar, "evil.pickle", b"cos\nsystem\n(S'touch owned'\ntR.")
        add(tar, "sub/dir.png", png(paint(1, 8, 8)))
    with tarfile.open(folder / "b.tar", "w") as tar:
        add(tar, "c1.mp4", clip)
        add(tar, "c2.mp4", clip)
        add(tar, "c3.mp4", b"\0" * 100_000)
    whole = (folder / "b.tar").read_bytes()
    (folder / "b.tar").write_bytes(whole[: len(whole) - 60_000])
    (folder / "c.tar").write_bytes(b"no tar at all" * 100)
    return tmp_path


def test_foreign_shards_are_indexed_and_hostile_members_counted(foreign_root, capsys):
    before = sorted(p for p in foreign_root.rglob("*"))
    report = index_shards(foreign_root, "train")
    infos = {info.key: info for info in read_index(foreign_root, "train")}
    again, inside = legal_key("c1", "b.tar/"), legal_key("sub/dir")
    assert set(infos) == {"c1", "i1", "long", inside, again, "c2"}
    assert (infos[again].shard, infos[again].sha256) == ("b.tar", infos["c1"].sha256)
    assert (infos["c1"].num_frames, infos["c1"].height, infos["c1"].width) == SHAPE
    assert (infos["c1"].fps, infos["c1"].caption) == (24.0, "a caption")
    assert (infos["i1"].media, infos["i1"].width, infos["i1"].caption) == ("image", 30, "still")
    for info in infos.values():
        read_payload(foreign_root, "train", info)
    reasons = {name.removeprefix("a.tar/"): reason for name, reason in report.refused}
    assert reasons["../escape.mp4"] == "name leaves its folder"
    assert reasons["/abs.mp4"] == "absolute name"
    assert reasons["link.mp4"] == reasons["hard.mp4"] == "link"
    assert reasons["pipe.mp4"] == "neither a plain file nor a folder"
    for key in ("bad", "zero", "half"):
        assert "cannot be decoded" in reasons[key]
    assert infos["long"].caption == "x" * 100_000
    assert "payloads []" in reasons["evil"]
    assert reasons["b.tar/c3.mp4"] == "truncated"
    assert "damaged tar" in reasons["c.tar"]
    made = sorted(p.name for p in foreign_root.rglob("*") if p not in before)
    assert made == ["index.jsonl", "manifest.json", "refused.jsonl"]
    assert main([str(foreign_root), "train", "--check"]) == 0
    assert "indexed  6 samples" in capsys.readouterr().out


def test_the_index_of_our_own_shards_can_be_rebuilt(clip_root, tmp_path):
    (tmp_path / "train").mkdir()
    for path in (clip_root / "train").glob("*.tar"):
        (tmp_path / "train" / path.name).write_bytes(path.read_bytes())
    index_shards(tmp_path, "train")
    assert read_index(tmp_path, "train") == read_index(clip_root, "train")


def write_truths(root):
    truths = [{"camera": {"poses": [[0.5, i, 1]]}, "words": "é"} for i in range(5)]
    with ShardWriter(root, "train", 3000) as writer:
        for i, truth in enumerate(truths):
            more = {"short_caption": f"thing {i}", "shots": [2, 4], "scores": {"motion": 0.25}}
            made = meta(f"k{i}", "video", SHAPE, **more)
            writer.write(made, bytes([i]) * 900, "mp4", truth if i != 2 else None)
    return truths


def test_what_a_simulator_knew_is_read_back_without_the_payload(tmp_path):
    truths = write_truths(tmp_path)
    infos = read_index(tmp_path, "train")
    assert len({info.shard for info in infos}) > 1
    found = [read_truth(tmp_path, "train", info) for info in infos]
    assert found == [*truths[:2], None, *truths[3:]]
    assert [read_payload(tmp_path, "train", info)[0] for info in infos] == list(range(5))
    assert (infos[1].short_caption, infos[1].shots) == ("thing 1", [2, 4])


def test_an_index_that_is_rebuilt_finds_the_truth_again(tmp_path):
    write_truths(tmp_path)
    written = read_index(tmp_path, "train")
    index_shards(tmp_path, "train")
    assert read_index(tmp_path, "train") == written


def test_a_damaged_truth_is_named(tmp_path, rewrite):
    write_truths(tmp_path)
    info = read_index(tmp_path, "train")[0]
    rewrite(tmp_path / "train" / info.shard, info.truth_offset, b"nonsense")
    with pytest.raises(ValueError, match="the truth of 'k0' is no JSON"):
        read_truth(tmp_path, "train", info)


def test_indexing_an_empty_folder_says_what_to_do(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    assert main([str(tmp_path), "train"]) == 2
    assert r"holds no *.tar" in capsys.readouterr().err
