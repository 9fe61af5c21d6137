"""The same shards from children, from shares of an array, and from a Ray cluster; no part twice."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.config import IngestConfig
from data.engine.engines import NotSeen, Work, build_batch
from data.engine.parts import Part, build_part, finish_dead_part, is_whole, last_pulse
from data.engine.source import Notes
from data.ingest import ingest
from data.ingest.ingest import find_sources
from tests.data.conftest import encode, paint

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: it is an extra"
)
EXTRA = {"duplicate_bits": -1, "repeat_bits": -1, "num_workers": 1, "timeout_seconds": 900}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Give a folder of four pictures and two films, one of them no film."""
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8)
    for name, pixels in zip("abcd", noise, strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "e.mp4").write_bytes(encode(paint(22, 48, 64)))
    (folder / "f.mp4").write_bytes(b"no film")
    return folder


def run(films: Path, out: Path, *more: str) -> dict[str, bytes]:
    """Ingest and return the dataset's shards and indexes."""
    words = [f"{key}={value}" for key, value in EXTRA.items()]
    assert ingest.main([f"input={films}", f"output={out}", *words, *more]) == 0
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.glob("*/*"))
        if path.suffix in (".tar", ".jsonl") and path.parent.name == "train"
    }


@pytest.mark.heavy
def test_shares_of_an_array_and_the_command_without_give_the_same_shards(films, tmp_path, capsys):
    whole = run(films, tmp_path / "whole")
    out = tmp_path / "out"
    for number in (1, 0):
        assert run(films, out, f"share={number}/2") == {}
        assert f"share {number}/2 is there" in capsys.readouterr().out
        assert len(list(out.glob(".parts/*/*.jsonl"))) == (3, 6)[number == 0]
    made = {path: path.stat().st_mtime_ns for path in out.glob(".parts/*/*.jsonl")}
    assert len(made) == 6
    assert run(films, out) == whole
    assert len(whole) == 2


def start_cluster(attempts: int = 3) -> None:
    """Start Ray on this machine; it gives itself 30 s, which a machine full of tests may take."""
    import ray

    for left in reversed(range(attempts)):
        try:
            ray.init(
                num_cpus=2, object_store_memory=80_000_000, include_dashboard=False,
                log_to_driver=False,
            )  # fmt: skip
            return
        except Exception:  # Ray raises a bare one
            ray.shutdown()
            if not left:
                raise


@needs_ray
@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ray_gives_the_same_shards_bit_for_bit(films, tmp_path, monkeypatch):
    import ray

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    whole = run(films, tmp_path / "whole")
    start_cluster()
    try:
        assert run(films, tmp_path / "out", "engine=ray") == whole
    finally:
        ray.shutdown()
    assert not (tmp_path / "out" / ".parts").exists()


@needs_ray
def test_a_cluster_that_is_not_there_is_told_in_words(films, tmp_path, capsys):
    words = [f"input={films}", f"output={tmp_path / 'out'}", "engine=ray", "address=no cluster"]
    assert ingest.main(words) == 2
    assert "address=no cluster: no Ray cluster answers there" in capsys.readouterr().err


def work_of(films: Path, folder: Path) -> tuple[Work, list[Part], IngestConfig]:
    config = IngestConfig(input=str(films), output=str(folder), **EXTRA)
    folder.mkdir(exist_ok=True)
    parts = [Part(folder, source, config) for source in find_sources(config, Notes())]
    return Work(folder, build_part, finish_dead_part, is_whole, last_pulse), parts, config


@pytest.mark.heavy
def test_a_batch_that_goes_again_builds_only_what_is_missing(films, tmp_path):
    """As on another node, after the first one died in its middle."""
    work, parts, config = work_of(films, tmp_path / "parts")
    assert build_batch(work, parts[:2], config, Path.cwd()) == [1, 1]
    first = parts[0].stem.with_suffix(".jsonl")
    made = first.stat().st_mtime_ns
    parts[2].stem.with_name(f"{parts[2].stem.name}-dead-17").with_suffix(".tmp").touch()
    assert build_batch(work, parts, config, Path.cwd()) == [0, 0, 1, 1, 1, 0]
    assert first.stat().st_mtime_ns == made
    assert all(map(is_whole, parts))


def test_two_that_build_a_part_at_once_never_write_one_file(films, tmp_path):
    _, parts, _ = work_of(films, tmp_path / "parts")
    one, other = (replace(parts[0], attempt=name) for name in ("a", "b"))
    assert one.stem == other.stem
    assert one.growing != other.growing
    assert build_part(one) == 1
    payloads = one.stem.with_suffix(".bin").read_bytes()
    assert build_part(other) == 1
    assert one.stem.with_suffix(".bin").read_bytes() == payloads
    assert is_whole(parts[0])
    assert sorted(p.suffix for p in (tmp_path / "parts").iterdir()) == [".bin", ".jsonl"]


def test_a_node_that_does_not_see_the_folders_is_named(films, tmp_path):
    work, parts, config = work_of(films, tmp_path / "parts")
    with pytest.raises(NotSeen, match=r"does not see .*Put input and output where all nodes"):
        build_batch(replace(work, folder=tmp_path / "elsewhere"), parts, config, Path.cwd())


@pytest.mark.parametrize("said", ["share=2/2", "share=1", "share=a/b", "address=host:6379"])
def test_shares_and_addresses_that_mean_nothing_are_refused(films, tmp_path, capsys, said):
    assert ingest.main([f"input={films}", f"output={tmp_path / 'out'}", said]) == 2
    assert f"{said}: " in capsys.readouterr().err
