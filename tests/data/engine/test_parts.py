"""Parts are whole when they count: synced, compared with what was written, and built again."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.config import IngestConfig
from data.dataset.shards import read_index, read_payload
from data.engine.parts import Part, build_dataset, build_part, is_whole
from data.engine.source import Notes
from data.ingest.ingest import find_sources


class Stop(Exception):
    """An interrupt."""


@pytest.fixture
def config(tmp_path):
    """Give the config of an ingest of four pictures of noise, 48 x 64."""
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    for name, pixels in zip("abcd", noise, strict=True):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    return IngestConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"), num_workers=1)


def build(config, root, on_progress=lambda *_: None):
    notes = Notes()
    return build_dataset(root, find_sources(config, notes), config, notes, on_progress)


def parts_below(root, suffix):
    return sorted((root / ".parts").glob(f"*/*{suffix}"))


def stop_when_all_are_built(done, total, text):
    if done == total:
        raise Stop


def cut_off(path, nbytes=900):
    os.truncate(path, path.stat().st_size - nbytes)


def flip(path, place=200):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def spoil_lines(path):
    """Damage the record of a part: what a power cut may leave of a file that was not synced."""
    path = path.with_suffix(".jsonl")
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.heavy
def test_parts_that_an_interrupt_left_short_or_damaged_are_built_again(config, tmp_path):
    build(config, tmp_path / "whole")
    with pytest.raises(Stop):
        build(config, tmp_path / "out", stop_when_all_are_built)
    *damaged, good = parts_below(tmp_path / "out", ".bin")
    time = good.stat().st_mtime_ns
    for path, damage in zip(damaged, (cut_off, flip, spoil_lines), strict=True):
        damage(path)
    seen = []
    build(config, tmp_path / "out", lambda *_: seen.append(good.stat().st_mtime_ns))
    assert set(seen) == {time}
    assert read_index(tmp_path / "out", "train") == read_index(tmp_path / "whole", "train")
    for info in read_index(tmp_path / "out", "train"):
        read_payload(tmp_path / "out", "train", info)


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [cut_off, flip])
def test_a_part_that_is_damaged_before_assembly_is_never_a_shard(config, tmp_path, damage):
    def spoil(done, total, text):
        if done == total:
            damage(parts_below(tmp_path / "out", ".bin")[1])

    with pytest.raises(
        ValueError, match=r"part=.\.png: its payloads changed .* same command again"
    ):
        build(config, tmp_path / "out", spoil)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert len(parts_below(tmp_path / "out", ".bin")) == 3
    manifest = build(config, tmp_path / "out")
    assert manifest["splits"]["train"]["images"] == 4
    assert manifest["rejects"] == []


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
    part = Part(tmp_path, source, config)
    assert build_part(part) == 1
    name = part.stem.name
    assert done == [
        ("sync", f"{name}.bin"),
        ("sync", f"{name}.tmp"),
        ("rename", f"{name}.jsonl"),
        ("sync", tmp_path.name),
    ]
    assert is_whole(part)
    assert not is_whole(replace(part, folder=tmp_path / "in"))
