"""The index in columns: the same plan, digest and samples as the list, at 32 bytes a sample."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.config import DataConfig, MemberConfig
from data.dataset import shards
from data.dataset.columns import COLUMNS_NAME, ROW, Columns, open_columns
from data.dataset.opening import open_index
from data.dataset.shards import read_index, write_index
from data.dataset.table import Joined, Pieced, Stored, Table, index_digest, media_of
from data.loading.loader import Loader
from data.loading.mixture import planner_of, read_mixture
from data.loading.pieces import cut_long, num_pieces
from data.loading.planner import shard_numbers
from data.loading.stream import Span, Stream, scattered
from tests.data.conftest import info_of
from trainer.config import compose_run
from trainer.diffusion.horizon import flops_per_token

CELL = (4, 16, 16)
SHAPES = [(17, 64, 96), (9, 96, 64), (5, 64, 64), (1, 128, 96), (13, 72, 56)]


def write_split(root: Path, count: int, prefix: str = "s", split: str = "train") -> Path:
    """Write an index of samples without bytes behind them."""
    infos = []
    for i in range(count):
        shape = SHAPES[i % 7 % len(SHAPES)]
        info = info_of(
            f"{prefix}-{i:05d}", "image" if shape[0] == 1 else "video", shape,
            source=f"film{i // 3 % 11}/ä", caption=f"Ein Ball rollt {i}",
            caption_tokens=i % 5, short_caption="Ball" if i % 3 else "",
        )  # fmt: skip
        infos.append(
            replace(info, sha256=f"{i:064x}", shard=f"shard-{i // 40:06d}.tar", offset=512 * i)
        )
    (root / split).mkdir(parents=True)
    write_index(root / split, infos)
    return root


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every index count as large."""
    monkeypatch.setattr(shards, "MOST_KEPT", 0)


def config_of(root: Path, **values: object) -> DataConfig:
    return DataConfig(
        **{"root": str(root), "pack_tokens": 200, "packs_per_step": 4, "pool": 32} | values
    )


def steps_of(config: DataConfig, seed: int = 3) -> list[list[list[tuple[str, int]]]]:
    """Return the keys and visits of a run's first steps, and its digest."""
    dataset = cut_long(read_mixture(config, "train"), CELL, config.pack_tokens)
    planner = planner_of(config, dataset.infos, dataset.spans, CELL, seed)
    return [
        [[(dataset.infos[p.index].key, p.visit) for p in pack] for pack in planner.next_step()]
        for _ in range(60)
    ]


def test_columns_are_32_bytes_a_sample_and_say_what_the_list_says(tmp_path, large):
    root = write_split(tmp_path, 300)
    table, infos = open_index(root, "train"), read_index(root, "train")
    assert isinstance(table, Stored)
    assert sum(np.dtype(kind).itemsize for kind in ROW.values()) == 32
    size = (root / "train" / COLUMNS_NAME).stat().st_size
    assert size < 32 * 300 + 4096
    assert list(table) == infos
    assert table[-1] == infos[-1]
    assert index_digest(table) == index_digest(infos)
    assert media_of(table) == media_of(infos) == {"video", "image"}
    assert shard_numbers(table).tolist() == shard_numbers(infos).tolist()
    with pytest.raises(IndexError):
        table[300]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"limit": 37},
        {"limit": 0.5, "shuffle_shards": 2},
        {"pack_tokens": 60},  # long clips are cut
        {"mixture": [MemberConfig(weight=2), MemberConfig(root="other", source="film3*")]},
        {"pack_tokens": 60, "mixture": [MemberConfig(source="film[0-4]*"), MemberConfig("other")]},
    ],
)
def test_a_plan_from_columns_is_the_plan_from_lists(tmp_path, monkeypatch, values):
    root = write_split(tmp_path / "a", 300)
    write_split(tmp_path / "other", 90, "other")
    monkeypatch.chdir(tmp_path)
    config = config_of(root, **values)
    asked = steps_of(config)
    monkeypatch.setattr(shards, "MOST_KEPT", 0)
    dataset = cut_long(read_mixture(config, "train"), CELL, config.pack_tokens)
    assert isinstance(dataset.infos, Table)
    assert steps_of(config) == asked
    assert isinstance(dataset.infos, Pieced) == (config.pack_tokens == 60)


def test_a_member_in_memory_joins_one_in_columns(tmp_path, monkeypatch):
    root, other = write_split(tmp_path / "a", 300), write_split(tmp_path / "b", 20, "b")
    config = config_of(root, mixture=[MemberConfig(), MemberConfig(str(other))])
    asked = steps_of(config)
    monkeypatch.setattr(shards, "MOST_KEPT", (other / "train" / "index.jsonl").stat().st_size)
    dataset = read_mixture(config, "train")
    assert isinstance(dataset.infos, Joined)
    assert steps_of(config) == asked
    write_split(tmp_path / "c", 20, "s")
    twice = config_of(root, mixture=[MemberConfig(), MemberConfig(str(tmp_path / "c"))])
    with pytest.raises(ValueError, match=r"key='s-000\d\d': must be in one member"):
        read_mixture(twice, "train")


def test_pieces_and_flops_are_counted_without_reading_a_line(tmp_path, monkeypatch):
    root = write_split(tmp_path, 300)
    config = config_of(root, pack_tokens=60)
    listed = cut_long(read_mixture(config, "train"), CELL, 60)
    run = compose_run(["experiment=cpu_smoke", "horizon.steps=1"])
    flops = flops_per_token(run, listed.infos)
    monkeypatch.setattr(shards, "MOST_KEPT", 0)
    table = cut_long(read_mixture(config, "train"), CELL, 60)
    monkeypatch.setattr(Columns, "read", None)
    assert num_pieces(table.infos) == num_pieces(listed.infos) > 0
    assert flops_per_token(run, table.infos) == pytest.approx(flops, rel=1e-12)


def test_an_index_that_changed_makes_its_columns_anew(tmp_path, large):
    root = write_split(tmp_path, 30)
    path = root / "train" / "index.jsonl"
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:20]) + "\n")
    assert len(open_index(root, "train")) == 20
    assert open_columns(root / "train", "") is not None
    table = open_index(root, "train")
    text = path.read_text(encoding="utf-8")
    with open(path, "r+", encoding="utf-8") as stream:  # in place, of the same size
        stream.write(text.replace("s-00003", "t-00003"))
    with pytest.raises(ValueError, match=r"row=3: the index changed after index.columns. Rebuild"):
        table[3]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"no columns"])
def test_columns_that_are_none_are_written_anew(tmp_path, large, damage):
    root = write_split(tmp_path, 30)
    (root / "train" / COLUMNS_NAME).write_bytes(damage)
    assert len(open_index(root, "train")) == 30
    cut = (root / "train" / COLUMNS_NAME).read_bytes()[:-100]
    (root / "train" / COLUMNS_NAME).write_bytes(cut)
    assert open_columns(root / "train", "") is None
    assert open_index(root, "train")[29].key == "s-00029"


def test_a_key_that_an_index_repeats_is_named(tmp_path, large):
    root = write_split(tmp_path, 30)
    path = root / "train" / "index.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[7]]))
    with pytest.raises(ValueError, match=r"key='s-00007': must be unique\. Rebuild"):
        open_index(root, "train")


def test_a_sample_that_no_pack_holds_is_named(tmp_path, large):
    root = write_split(tmp_path, 30)
    with pytest.raises(ValueError, match=r"but 22 are larger; 's-00000' \(17x64x96\) has 120"):
        Loader(config_of(root, pack_tokens=40), "train", CELL, 0, 0, 1)


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 4097])
def test_scattering_is_a_permutation(count):
    keys = [3, 1 << 63, 5, 7, 11, 13]
    assert sorted(scattered(i, count, keys) for i in range(count)) == list(range(count))


def test_a_large_source_is_met_once_a_pass_in_another_order_each_pass(monkeypatch):
    monkeypatch.setattr("data.loading.stream.SCATTERED_FROM", 100)
    stream = Stream([1] * 300, [Span(0, 300, 1.0)], seed=1)
    passes = [[stream.draw()[1].index for _ in range(300)] for _ in range(2)]
    assert [sorted(one) for one in passes] == [list(range(300))] * 2
    assert passes[0] != passes[1]
    # Neighbours of the index come as far apart as in any random order.
    gaps = np.abs(np.diff(passes[0]))
    assert 85 < gaps.mean() < 115
    again = Stream([1] * 300, [Span(0, 300, 1.0)], seed=1)
    again.load_state_dict({"position": 250, "sources": [[250, 250]]})
    assert [again.draw()[1].index for _ in range(50)] == passes[0][250:]
    assert Stream([1] * 300, [Span(0, 300, 1.0)], seed=2).draw() != stream.draw()


def test_a_folder_that_cannot_be_written_to_is_read_whole(tmp_path, large, monkeypatch, caplog):
    root = write_split(tmp_path, 30)
    os.unlink(root / "train" / COLUMNS_NAME)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("data.dataset.columns.replacing", refuse)
    assert isinstance(open_index(root, "train"), list)
    assert "each rank reads all of" in caplog.text


def test_a_small_index_stays_a_list_without_columns(tmp_path):
    root = write_split(tmp_path, 30)
    assert isinstance(open_index(root, "train"), list)
    assert not (root / "train" / COLUMNS_NAME).exists()
    assert json.loads((root / "train" / "index.jsonl").read_text().splitlines()[0])
