"""The same shards from children, from shares of an array, and from a Ray cluster; no part twice."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.config import IngestConfig
from data.engine.drafts import build_draft, is_whole_draft, source_ids
from data.engine.engines import Work, do_batch
from data.engine.parts import Part, build_parts, plan_parts
from data.engine.source import Notes
from data.ingest import ingest
from data.ingest.ingest import find_sources
from tests.data.conftest import encode, paint

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: it is an extra"
)
EXTRA = {"duplicate_bits": -1, "repeat_bits": -1, "num_workers": 1, "timeout_seconds": 900}
EXTRA |= {"shard_bytes": 300_000}  # of work: two files a part


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
        run(films, out, f"share={number}/2")
        assert f"share {number}/2 is there" in capsys.readouterr().out
        assert len(list(out.glob("train/part-*.jsonl"))) == (1, 3)[number == 0]
        assert not (out / "manifest.json").exists()
    made = {path: path.stat().st_mtime_ns for path in out.glob("train/*")}
    assert len(made) == 6
    assert run(films, out) == whole
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert sum(name.endswith(".tar") for name in whole) == 3


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


def planned(films: Path, out: Path) -> list[Part]:
    """Return the three parts of the films."""
    config = IngestConfig(input=str(films), output=str(out), **EXTRA)
    out.mkdir(exist_ok=True)
    sources = find_sources(config, Notes())
    return plan_parts(out, list(zip(sources, source_ids(sources, config), strict=True)), config, 0)


@pytest.mark.heavy
def test_a_batch_that_goes_again_builds_only_what_is_missing(films, tmp_path):
    """As on another node, after the first one died in its middle."""
    first, *rest = parts = planned(films, tmp_path / "out")
    work = Work(build_parts, (tmp_path / "out",))
    assert do_batch([first], work, "", Path.cwd())[1] == 2
    made = first.name.piece(first.root).stat().st_mtime_ns
    draft = rest[0].drafts[0]
    assert build_draft(draft) == 1
    dead = draft.stem.with_name(f"{draft.stem.name}-dead-17").with_suffix(".tmp")
    dead.touch()
    drafted = draft.stem.with_suffix(".bin").stat().st_mtime_ns
    weight, samples = do_batch(parts, work, "", Path.cwd())
    assert weight == pytest.approx(sum(part.weight for part in parts))
    assert samples == 2  # d.png and e.mp4; f.mp4 is none
    assert first.name.piece(first.root).stat().st_mtime_ns == made
    assert all(part.is_whole() for part in parts)
    assert drafted
    assert sorted(p.name for p in (tmp_path / "out" / ".parts").iterdir()) == [dead.name]


def test_two_that_draft_a_source_at_once_never_write_one_file(films, tmp_path):
    draft = planned(films, tmp_path / "out")[0].drafts[0]
    one, other = (replace(draft, attempt=name, folder=tmp_path) for name in ("a", "b"))
    assert one.stem == other.stem
    assert one.growing != other.growing
    assert build_draft(one) == 1
    payloads = one.stem.with_suffix(".bin").read_bytes()
    assert build_draft(other) == 1
    assert one.stem.with_suffix(".bin").read_bytes() == payloads
    assert is_whole_draft(replace(draft, folder=tmp_path))
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert sorted(p.suffix for p in files) == [".bin", ".jsonl"]


def test_a_node_that_does_not_see_the_folders_is_named(films, tmp_path):
    parts = planned(films, tmp_path / "out")
    work = Work(build_parts, (tmp_path / "elsewhere",))
    with pytest.raises(ValueError, match=r"does not see .*Put input and output where all nodes"):
        do_batch(parts, work, "head:6379", Path.cwd())


@pytest.mark.parametrize("said", ["share=2/2", "share=1", "share=a/b", "address=host:6379"])
def test_shares_and_addresses_that_mean_nothing_are_refused(films, tmp_path, capsys, said):
    assert ingest.main([f"input={films}", f"output={tmp_path / 'out'}", said]) == 2
    assert f"{said}: " in capsys.readouterr().err
