"""A picture is told by its bytes, starts no program, and can cost a child but not the run."""

import ast
import hashlib
import io
import json
import os
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data.config import BadSamplePolicy, DataConfig, IngestConfig
from data.dataset.shards import ShardWriter, read_index, read_payload
from data.decode.decoders import PillowDecoder
from data.decode.pictures import PICTURE_FORMATS
from data.decode.pool import DecoderPool
from data.derive.index import index_shards
from data.ingest.ingest import ingest
from data.loading.loader import Loader
from tests.data.conftest import add, info_of, meta, paint, png

ROOT = Path(__file__).parents[3]
ROOMS = ("benchmarks", "data", "launch", "models", "sweeps", "trainer")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(x) = showpage\n%%EOF\n"


@pytest.fixture
def gs_log(tmp_path, monkeypatch):
    """Put a program named gs first on the PATH; return the file in which each call of it shows."""
    folder = tmp_path / "programs"
    folder.mkdir()
    log = tmp_path / "gs.log"
    (folder / "gs").write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit 1\n')
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    subprocess.run(["gs", "--version"], check=False)
    assert log.read_text() == "--version\n"
    log.write_text("")
    return log


def shard(root, members):
    """Write one foreign shard of members by name."""
    (root / "train").mkdir(parents=True)
    with tarfile.open(root / "train" / "a.tar", "w") as tar:
        for name, content in members.items():
            add(tar, name, content)


def as_if_ours(said, content):
    """Return JSON that vouches for a payload as that of our own shards does: it is not decoded."""
    return json.dumps(said | {"sha256": hashlib.sha256(content).hexdigest()}).encode()


def load(root, num_samples):
    """Return the samples and the (key, reason) of those dropped, of one step of all samples."""
    drop = BadSamplePolicy.drop
    tokens = 9 * num_samples  # of 40 x 40 pixels each
    config = DataConfig(root=str(root), pack_tokens=tokens, pool=num_samples, on_bad_sample=drop)
    loader = Loader(config, "train", (4, 16, 16), seed=0, rank=0, world=1)
    try:
        (pack,) = loader.next_step().packs
        return pack.samples, pack.dropped
    finally:
        loader.close()


@pytest.mark.heavy
def test_ingest_starts_no_program_for_a_postscript_file_whatever_its_name(tmp_path, gs_log):
    (tmp_path / "in").mkdir()
    names = ["x.png", "x.jpg", "x.JPEG", "x.webp", "x.tif", "x.bmp", "x.ppm", "x.eps"]
    for name in names:
        (tmp_path / "in" / name).write_bytes(EPS)
    (tmp_path / "in" / "good.png").write_bytes(png(paint(1, 40, 40)))
    config = IngestConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    manifest = ingest(config, Console(file=io.StringIO()))
    assert sorted(entry["file"] for entry in manifest["rejects"]) == sorted(names)
    assert [i.source for i in read_index(tmp_path / "out", "train")] == ["good.png"]
    assert gs_log.read_text() == ""


def test_index_starts_no_program_for_a_postscript_member(tmp_path, gs_log):
    shard(tmp_path, {"x.png": EPS, "y.jpg": EPS, "good.png": png(paint(1, 20, 30))})
    report = index_shards(tmp_path, "train")
    assert [info.key for info in report.infos] == ["good"]
    reasons = dict(report.refused)
    assert sorted(reasons) == ["a.tar/x", "a.tar/y"]
    assert all("holds none of PNG, JPEG" in reason for reason in reasons.values())
    assert gs_log.read_text() == ""


def test_loading_starts_no_program_for_a_postscript_sample_that_an_index_lists(tmp_path, gs_log):
    said = {"num_frames": 1, "height": 40, "width": 40, "fps": 0.0}
    members = {"x.png": EPS, "y.jpg": EPS, "good.png": png(paint(1, 40, 40))}
    told = {
        f"{name.split('.')[0]}.json": as_if_ours(said, content) for name, content in members.items()
    }
    shard(tmp_path, dict(sorted((members | told).items())))
    assert len(index_shards(tmp_path, "train").infos) == 3
    samples, dropped = load(tmp_path, 3)
    assert [sample.info.key for sample in samples] == ["good"]
    assert sorted(key for key, _ in dropped) == ["x", "y"]
    assert all("holds none of PNG, JPEG" in reason for _, reason in dropped)
    assert gs_log.read_text() == ""


@pytest.mark.heavy
@pytest.mark.parametrize("form", PICTURE_FORMATS)
def test_a_child_gives_the_pixels_that_pillow_gives_here(form):
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    buffer = io.BytesIO()
    Image.fromarray(paint(1, 40, 56)[0]).save(buffer, form)
    with DecoderPool(1, 20.0) as pool:
        (decoded,) = pool.decode_many([(info_of("a", "image", (1, 40, 56)), buffer.getvalue())])
        assert pool.probe("a", "image", buffer.getvalue())["width"] == 56
    want = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    assert decoded.decoder == "pillow"
    np.testing.assert_array_equal(decoded.frames, want[None])


def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def claiming_png(height, width):
    """A PNG of a few bytes whose header claims one bit for each of so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_decompression_bomb_is_refused_by_name_at_index_and_at_loading(tmp_path):
    bomb = claiming_png(50_000, 50_000)
    small = as_if_ours({"num_frames": 1, "height": 40, "width": 40, "fps": 0.0}, bomb)
    good = png(paint(1, 40, 40))
    shard(tmp_path, {"bomb.png": bomb, "good.png": good, "lies.json": small, "lies.png": bomb})
    report = index_shards(tmp_path, "train")
    assert [(name, "pixels" in reason) for name, reason in report.refused] == [("a.tar/bomb", True)]
    samples, dropped = load(tmp_path, 2)
    assert [sample.info.key for sample in samples] == ["good"]
    assert [(key, "pixels" in reason) for key, reason in dropped] == [("lies", True)]


def test_a_picture_that_takes_too_much_memory_is_an_error_and_the_next_one_is_read():
    """Beyond three copies of the clip a child may take 1 MB; Pillow's copies take more."""
    large = io.BytesIO()
    Image.new("L", (4000, 4000)).save(large, "PNG")
    with DecoderPool(1, 20.0, decoder_bytes=1_000_000) as pool:
        info = info_of("a", "image", (1, 4000, 4000))
        (refused,) = pool.decode_many([(info, large.getvalue())])
        assert (refused.key, refused.reason) == ("a", "pillow: MemoryError: ")
        (read,) = pool.decode_many([(info_of("b", "image", (1, 40, 40)), png(paint(1, 40, 40)))])
        assert read.frames.shape == (1, 40, 40, 3)


@pytest.mark.heavy
def test_a_picture_over_the_time_limit_is_an_error_with_its_name():
    with DecoderPool(1, 1e-5) as pool:
        info = info_of("slow", "image", (1, 40, 40))
        (refused,) = pool.decode_many([(info, png(paint(1, 40, 40)))])
    assert refused.key == "slow"
    assert refused.reason.count("was killed") == 2


def test_images_alone_are_decoded_by_a_child_too(tmp_path):
    with ShardWriter(tmp_path, "train", 100_000) as writer:
        writer.write(meta("a", "image", (1, 40, 40)), png(paint(1, 40, 40)), "png")
    config = DataConfig(root=str(tmp_path), pack_tokens=9, pool=1)
    loader = Loader(config, "train", (4, 16, 16), seed=0, rank=0, world=1)
    try:
        (sample,) = loader.next_step().packs[0].samples
        assert len(loader._reader.pool.pids()) == 1
    finally:
        loader.close()
    info = read_index(tmp_path, "train")[0]
    here = PillowDecoder().decode(read_payload(tmp_path, "train", info))
    np.testing.assert_array_equal(sample.frames.numpy(), here)


def opens_of_pillow(source):
    """Return the lines on which a module calls ``Image.open`` or imports Pillow's ``open``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "open":
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name == "Image":
                found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
            found += [node.lineno for alias in node.names if alias.name == "open"]
    return found


def test_pictures_are_opened_in_one_place():
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(files) > 200
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in files]
    opened = [name for name, text in texts if "PIL" in text for _ in opens_of_pillow(text)]
    assert opened == ["pictures.py"]
