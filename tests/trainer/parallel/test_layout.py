"""Ranks, places and pieces, by arithmetic."""

from itertools import product

import pytest
import torch

from models.architecture import Split, specification_of
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig
from trainer.layout.layout import AXES, Coordinates, Layout
from trainer.parallel.rows import padded_rows, row_slice

LAYOUTS = [Layout(*sizes) for sizes in product((1, 2, 3), repeat=4)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_rank_and_its_place_name_each_other(layout: Layout) -> None:
    places = [layout.coordinates(rank) for rank in range(layout.world)]
    assert [layout.rank(place) for place in places] == list(range(layout.world))
    assert len(set(places)) == layout.world


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_groups_of_any_axes_divide_the_world(layout: Layout) -> None:
    for axes in [*((axis,) for axis in AXES), ("cp", "dp"), ("tp", "pp"), AXES]:
        groups = list(layout.groups(*axes))
        assert sorted(rank for group in groups for rank in group) == list(range(layout.world))
        for group in groups:
            assert all(layout.members(rank, *axes) == group for rank in group)


def test_tensor_ranks_are_neighbours_and_pipeline_ranks_far_apart() -> None:
    layout = Layout(tp=2, cp=3, dp=5, pp=7)
    strides = {a: layout.members(0, a)[1] for a in AXES}
    assert strides == {"tp": 1, "cp": 2, "dp": 6, "pp": 30}
    assert layout.coordinates(209) == Coordinates(1, 2, 4, 6)


def test_the_table_names_axes_and_ranks() -> None:
    lines = Layout(tp=2, dp=16).table(most=4).splitlines()
    assert lines[0] == "layout of 32 ranks: tensor 2, context 1, data 16, pipeline 1"
    assert lines[3].split() == ["1", "1", "0", "0", "0"]
    assert lines[-1] == "... and 28 more"


@pytest.mark.parametrize("split", [Split(0), Split(1), Split(0, 3), Split(0, 2)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_of_a_parameter_join_to_it(split: Split, count: int) -> None:
    full = torch.randn(24, 8)
    parts = [split.cut(full, index, count) for index in range(count)]
    assert torch.equal(split.join(parts), full)
    assert {tuple(part.shape) for part in parts} == {split.shape((24, 8), count)}


def test_a_tensor_rank_holds_whole_heads_of_queries_keys_and_values() -> None:
    heads, size, width = 4, 3, 5
    full = torch.arange(3 * heads * size * width).view(3, heads, size, width)
    part = Split(0, groups=3).cut(full.flatten(0, 2), 1, 2)
    assert torch.equal(part.view(3, 2, size, width), full[:, 2:])


def test_all_matrices_of_blocks_are_cut() -> None:
    facts = specification_of(ModelConfig())
    for name, shape in facts.shapes.items():
        if len(shape) == 2 and name.startswith("blocks."):
            assert name in facts.cuts, name


@pytest.mark.parametrize("rows", [1, 5, 24, 97])
@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), Layout(tp=2, cp=3, dp=2)], ids=str)
def test_ranks_share_all_rows_of_a_pack(rows: int, layout: Layout) -> None:
    total = padded_rows(rows, layout)
    assert rows <= total < rows + layout.row_shards
    for peers in layout.groups("tp", "cp"):
        held = [i for r in peers for i in range(*row_slice(total, layout, r).indices(total))]
        assert held == list(range(total))


def test_context_ranks_trade_heads_with_neighbours_and_gather_keys_of_their_own_heads() -> None:
    layout = Layout(tp=2, cp=4, dp=2)
    groups = layout.context_groups(2)
    assert groups["cp_heads"][:2] == [[0, 2], [4, 6]]
    assert groups["cp_keys"][:2] == [[0, 4], [2, 6]]
    for made in groups.values():
        assert sorted(rank for group in made for rank in group) == list(range(layout.world))
    assert layout.context_groups(4)["cp_heads"] == list(layout.groups("cp"))
    assert layout.context_groups(1)["cp_keys"] == list(layout.groups("cp"))


def test_as_many_context_ranks_trade_heads_as_divide_both() -> None:
    split = {
        cp: ParallelConfig(cp=cp, tp=2).context_split(num_heads=12) for cp in (1, 2, 4, 6, 9, 24)
    }
    assert split == {1: (1, 1), 2: (2, 1), 4: (2, 2), 6: (6, 1), 9: (3, 3), 24: (6, 4)}
    assert ParallelConfig(cp=24, tp=2, head_ranks=3).context_split(12) == (3, 8)
