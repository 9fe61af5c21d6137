"""Parts are final: added to, never written again; whole when they count; no payload copied."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.config import IngestConfig
from data.dataset.part import PartName, PartWriter, read_piece
from data.dataset.shards import read_index, read_manifest, read_payload
from data.derive.index import index_shards
from data.engine import parts
from data.engine.drafts import Draft, build_draft, is_whole_draft, source_ids
from data.engine.parts import build_dataset, plan_parts
from data.engine.source import Notes
from data.ingest.ingest import find_sources
from tests.data.conftest import meta

SHARD_BYTES = 450_000  # of work: three pictures a part, whose least work is 0.1 s


class Stop(Exception):
    """An interrupt."""


def paint(folder, names, seed=0):
    """Write pictures of noise, 48 x 64."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (len(names), 48, 64, 3), np.uint8)
    for name, pixels in zip(names, noise, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture
def config(tmp_path):
    """Give the config of an ingest of four pictures in two parts."""
    paint(tmp_path / "in", "abcd")
    return IngestConfig(
        input=str(tmp_path / "in"), output=str(tmp_path / "out"), num_workers=1,
        shard_bytes=SHARD_BYTES, duplicate_bits=-1, repeat_bits=-1, timeout_seconds=900,
    )  # fmt: skip


def build(config, root, on_progress=lambda *_: None):
    notes = Notes()
    return build_dataset(root, find_sources(config, notes), config, notes, on_progress)


def files(root):
    """Return bytes and time of each shard and piece."""
    found = [*root.glob("*/*.tar"), *root.glob("*/part-*.jsonl")]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def sources_of(root, split="train"):
    return [info.source for info in read_index(root, split)]


def readable(root, split="train"):
    """Read and verify every payload of a split."""
    return all(read_payload(root, split, info) for info in read_index(root, split))


def cut_off(path, nbytes=900):
    os.truncate(path, path.stat().st_size - nbytes)


def flip(path, place=700):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def spoil(path):
    """Damage a record: what a power cut may leave of a file that was not synced."""
    path.write_bytes(b"\0" * path.stat().st_size)


def lose_line(path):
    """Let a record end at an earlier line."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


@pytest.mark.heavy
def test_files_that_are_added_make_parts_and_nothing_is_built_again(config, tmp_path, monkeypatch):
    build(config, tmp_path / "out")
    before = files(tmp_path / "out")
    assert len(before) == 4  # two parts
    paint(tmp_path / "in", ["0", "bb"], seed=1)
    built = []
    seal = parts.seal
    monkeypatch.setattr(parts, "seal", lambda part: (built.append(part), seal(part)))
    manifest = build(config, tmp_path / "out")
    assert [[s.name for s in part.sources] for part in built] == [["0.png", "bb.png"]]
    after = files(tmp_path / "out")
    assert {path: after[path] for path in before} == before
    assert len(after) == 6
    assert sources_of(tmp_path / "out") == ["a.png", "b.png", "c.png", "d.png", "0.png", "bb.png"]
    assert readable(tmp_path / "out")
    assert manifest["splits"]["train"]["images"] == 6
    assert {len(held) for held in (manifest["parts"]["train"], manifest["shards"]["train"])} == {3}
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.heavy
def test_what_was_added_may_crowd_out_an_older_sample_without_touching_its_shard(config, tmp_path):
    """A larger near-duplicate stays, the older one leaves the index, as if both were new."""
    config = replace(config, duplicate_bits=8.0)
    soft = Image.fromarray(np.random.default_rng(3).integers(0, 255, (6, 8, 3), np.uint8))
    soft.resize((64, 48), Image.Resampling.BICUBIC).save(tmp_path / "in" / "e.png")
    build(config, tmp_path / "out")
    assert "e.png" in sources_of(tmp_path / "out")
    before = files(tmp_path / "out")
    soft.resize((128, 96), Image.Resampling.BICUBIC).save(tmp_path / "in" / "large.png")
    manifest = build(config, tmp_path / "out")
    assert {path: files(tmp_path / "out")[path] for path in before} == before
    assert sources_of(tmp_path / "out") == ["a.png", "b.png", "c.png", "d.png", "large.png"]
    build(config, tmp_path / "fresh")
    assert sorted(sources_of(tmp_path / "fresh")) == sorted(sources_of(tmp_path / "out"))
    (key,) = manifest["left_out"]["train"]
    (reject,) = manifest["rejects"]
    assert reject["file"] == f"e.png: {key}"
    index_shards(tmp_path / "out", "train")  # of the tars, which still hold it
    assert key not in {info.key for info in read_index(tmp_path / "out", "train")}


@pytest.mark.heavy
def test_a_source_that_changed_or_went_is_not_replaced_unasked(config, tmp_path):
    build(config, tmp_path / "out")
    before = files(tmp_path / "out")
    paint(tmp_path / "in", "d", seed=5)
    with pytest.raises(ValueError, match="made from other inputs or settings"):
        build(config, tmp_path / "out")
    assert files(tmp_path / "out") == before
    build(replace(config, overwrite=True), tmp_path / "out")
    kept = [path for path in before if "-000000-" in path.name]
    assert len(kept) == 2
    after = files(tmp_path / "out")
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert len(after) == 4
    assert sources_of(tmp_path / "out") == ["a.png", "b.png", "c.png", "d.png"]
    assert readable(tmp_path / "out")


@pytest.mark.heavy
def test_a_dataset_of_other_settings_is_replaced_whole(config, tmp_path):
    build(replace(config, split="val_real"), tmp_path / "out")
    first = set(files(tmp_path / "out"))
    with pytest.raises(ValueError, match="made from other inputs or settings"):
        build(replace(config, max_black=0.5), tmp_path / "out")
    build(replace(config, max_black=0.5, overwrite=True), tmp_path / "out")
    assert not first & set(files(tmp_path / "out"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "train"]


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [cut_off, flip, spoil, lose_line])
def test_parts_that_an_interrupt_left_short_or_damaged_are_built_again(config, tmp_path, damage):
    build(config, tmp_path / "whole")

    def stop(done, total, text):
        if done == total:
            raise Stop

    with pytest.raises(Stop):
        build(config, tmp_path / "out", stop)
    assert not (tmp_path / "out" / "manifest.json").exists()
    found = files(tmp_path / "out")
    assert len(found) == 4
    kind = "part-000001*" if damage in (spoil, lose_line) else "shard-000001*"
    (hurt,) = (tmp_path / "out" / "train").glob(kind)
    damage(hurt)
    build(config, tmp_path / "out")
    whole = {path.name: content for path, (content, _) in files(tmp_path / "whole").items()}
    assert {p.name: content for p, (content, _) in files(tmp_path / "out").items()} == whole
    assert read_index(tmp_path / "out", "train") == read_index(tmp_path / "whole", "train")
    good = [path for path in found if "-000000-" in path.name]
    assert {path: found[path][1] for path in good} == {p: p.stat().st_mtime_ns for p in good}


@pytest.mark.heavy
def test_a_part_of_a_dataset_that_lost_bytes_is_named_and_built_again_when_asked(config, tmp_path):
    build(config, tmp_path / "out")
    whole = files(tmp_path / "out")
    (hurt,) = (tmp_path / "out" / "train").glob("shard-000000*")
    cut_off(hurt)
    paint(tmp_path / "in", "e", seed=1)
    with pytest.raises(ValueError, match=r"part=.*part-000000-.*missing or was changed"):
        build(config, tmp_path / "out")
    build(replace(config, overwrite=True), tmp_path / "out")
    assert readable(tmp_path / "out")
    assert sorted(sources_of(tmp_path / "out")) == [f"{name}.png" for name in "abcde"]
    (other,) = (p for p in whole if p.name.startswith("shard-000001"))
    assert other.read_bytes() == whole[other][0]


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [cut_off, flip])
def test_a_draft_that_is_damaged_before_it_is_sealed_is_never_in_a_shard(
    config, tmp_path, monkeypatch, damage
):
    seal = parts.seal

    def spoiled(part):
        damage(part.drafts[1].stem.with_suffix(".bin"))
        seal(part)

    monkeypatch.setattr(parts, "seal", spoiled)
    with pytest.raises(ValueError, match=r"part=b\.png: its payloads changed .* same command"):
        build(config, tmp_path / "out")
    assert files(tmp_path / "out") == {}
    monkeypatch.setattr(parts, "seal", seal)
    manifest = build(config, tmp_path / "out")
    assert manifest["splits"]["train"]["images"] == 4
    assert manifest["rejects"] == []


def test_two_that_write_one_part_write_no_file_twice_and_leave_one_whole(tmp_path):
    name = PartName("train", 3, "0123456789abcdef")
    one, other = (PartWriter(tmp_path, name, ["x"], 10**6) for _ in range(2))
    with one:
        with other:
            one.write(meta("k", "image", (1, 16, 16)), b"first" * 99, "png")
            other.write(meta("k", "image", (1, 16, 16)), b"second" * 99, "png")
            growing = [path for path in (tmp_path / "train").iterdir() if path.suffix == ".tmp"]
            assert len(growing) == 2
        piece = read_piece(name.piece(tmp_path))
        assert read_payload(tmp_path, "train", piece.infos[0]) == b"second" * 99
    piece = read_piece(name.piece(tmp_path))
    assert read_payload(tmp_path, "train", piece.infos[0]) == b"first" * 99
    assert len(list((tmp_path / "train").glob("*.tar"))) == 2


def test_parts_hold_consecutive_sources_of_a_split_in_order(config, tmp_path):
    found = find_sources(config, Notes())
    mixed = [replace(f, split=s) for f, s in zip(found, ("x", "y", "x", "x"), strict=True)]
    ids = source_ids(mixed, config)
    planned = plan_parts(tmp_path, list(zip(mixed, ids, strict=True)), config, 7)
    told = [(p.name.split, p.name.number, [s.name for s in p.sources]) for p in planned]
    assert told == [("x", 7, ["a.png", "c.png", "d.png"]), ("y", 8, ["b.png"])]
    assert len(set(ids)) == 4
    other = source_ids(mixed, replace(config, input="elsewhere", num_workers=5))
    assert other == ids  # neither the place nor who builds changes what a source gives
    assert not set(source_ids(mixed, replace(config, crf=20))) & set(ids)


@pytest.mark.heavy
def test_a_dataset_of_before_parts_opens_as_ever_and_is_not_added_to_in_silence(config, tmp_path):
    build(config, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    old = json.loads(path.read_text())
    del old["parts"], old["staying"], old["left_out"]
    for piece in (tmp_path / "out").glob("*/part-*"):
        piece.unlink()
    path.write_text(json.dumps(old))
    assert build(config, tmp_path / "out") == old
    assert readable(tmp_path / "out")
    paint(tmp_path / "in", "e", seed=1)
    with pytest.raises(ValueError, match="made from other inputs or settings"):
        build(config, tmp_path / "out")
    build(replace(config, overwrite=True), tmp_path / "out")
    assert len(sources_of(tmp_path / "out")) == 5
    assert len(read_manifest(tmp_path / "out")["shards"]["train"]) == 2


def test_shards_of_others_in_the_folder_are_not_taken_for_ours(config, tmp_path):
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "000000.tar").write_bytes(b"theirs")
    with pytest.raises(ValueError, match="already is there and was not made here"):
        build(config, tmp_path / "out")
    assert (tmp_path / "out" / "train" / "000000.tar").read_bytes() == b"theirs"


def test_payloads_are_on_disk_before_the_lines_that_tell_of_them_count(
    config, tmp_path, monkeypatch
):
    done = []
    fsync, rename = os.fsync, os.replace

    def note_sync(descriptor):
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def note_rename(old, new):
        done.append(("rename", os.path.basename(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    (source, *_) = find_sources(config, Notes())
    draft = Draft(tmp_path, source, "a", config)
    assert build_draft(draft) == 1
    assert done == [
        ("sync", "a.bin"),
        ("sync", "a.tmp"),
        ("rename", "a.jsonl"),
        ("sync", tmp_path.name),
    ]
    assert is_whole_draft(draft)
    assert not is_whole_draft(replace(draft, folder=tmp_path / "in"))
    done.clear()
    with PartWriter(tmp_path, PartName("train", 0, "f" * 16), [], 10**6) as writer:
        writer.write(meta("k", "image", (1, 16, 16)), b"x" * 99, "png")
    told = [(what, name.split("-")[0]) for what, name in done]
    written = [("sync", "shard"), ("rename", "shard"), ("sync", "train")]
    assert told == [*written, ("sync", "part"), ("rename", "part"), ("sync", "train")]
