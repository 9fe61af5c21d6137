"""The ladder of sizes: parameters in, shapes out."""

from dataclasses import replace
from itertools import pairwise
from math import log
from operator import attrgetter

import pytest

from models.count import count_params
from models.dit.model import DiT
from sweeps.kinds.compose import compose_study
from sweeps.ladder.shapes import (
    SPREAD,
    Constraint,
    Rung,
    aspect,
    head_size,
    ladder,
    shape_for,
    smallest,
)
from trainer.config import compose_run
from trainer.layout.config import ParallelConfig

BASE = compose_run(["experiment=cpu_demo", "horizon.steps=1"]).model
TARGETS = [2e4 * 1.3**step for step in range(46)]  # to 3e9


@pytest.fixture(scope="module")
def shapes() -> list[Rung]:
    return [shape_for(target, BASE) for target in TARGETS]


@pytest.mark.heavy
def test_neighbouring_targets_give_neighbouring_sizes(shapes: list[Rung]) -> None:
    for target, rung in zip(TARGETS, shapes, strict=True):
        assert 1 / 1.6 < rung.params / target < 1.6
    for small, large in pairwise(shapes):
        assert 1 <= large.params / small.params < 2.2


def test_stated_parameters_are_the_counted_ones_and_heads_are_whole(shapes: list[Rung]) -> None:
    for rung in shapes:
        assert rung.params == count_params(rung.of(BASE)).total
        assert rung.width % rung.head_dim == 0
        assert rung.head_dim % 2 == 0


def test_large_shapes_have_the_aspect_of_known_models() -> None:
    assert aspect(1152) == 40
    assert aspect(5120) == pytest.approx(128, rel=0.02)
    for target in (1e8, 1e9, 1e10):
        rung = shape_for(target, replace(BASE, head_dim=64))
        assert 0.5 < rung.width / rung.depth / aspect(rung.width) < 2


def test_every_size_of_the_demo_builds_with_its_stated_parameters_and_both_ends_compose() -> None:
    study = compose_study(["study=demo"])
    top = study.pilot.params[-1] * (study.budgets[-1] / study.pilot.flops) ** 0.5
    target, rungs = study.grid.min_params, set()
    while target < top * study.grid.spacing**2:
        rungs.add(shape_for(target, BASE))
        target *= 1.4
    assert len(rungs) > 8
    for rung in rungs:
        model = rung.of(BASE)
        model.check()
        assert sum(p.numel() for p in DiT(model).parameters()) == rung.params
    for rung in (min(rungs, key=attrgetter("params")), max(rungs, key=attrgetter("params"))):
        shape = [f"model.width={rung.width}", f"model.depth={rung.depth}"]
        shape += [f"model.head_dim={rung.head_dim}", "horizon.steps=1"]
        assert compose_run(["experiment=cpu_demo", *shape]).model == rung.of(BASE)


@pytest.mark.parametrize(("width", "target", "size"), [(48, 48, 48), (128, 64, 64), (40, 64, 40)])
def test_a_head_divides_the_width(width: int, target: int, size: int) -> None:
    assert head_size(width, target) == size


@pytest.mark.parametrize("params", [0, -1, float("nan")])
def test_a_size_that_is_no_size_is_refused(params: float) -> None:
    with pytest.raises(ValueError, match=r"params=.*must be positive\. Use for example"):
        shape_for(params, BASE)


def test_a_size_without_a_shape_near_it_is_refused_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"no feasible shape is near; the closest has .* Change"):
        shape_for(100, BASE)


BYTES = replace(BASE, text_width=32, head_dim=64)  # a text encoder that leaves room for 1e4


RATIOS = [*(pytest.param(ratio, marks=pytest.mark.heavy) for ratio in (1.5, 1.7, 2.0)), 2.5]


@pytest.mark.parametrize("ratio", RATIOS)
def test_rungs_rise_smoothly_from_1e4_to_3e10(ratio: float) -> None:
    rungs = ladder(1e4, 3e10, ratio, BYTES)
    assert len(rungs) > 0.9 * log(3e6) / log(ratio)
    assert rungs[0].params < 1.2e4
    assert rungs[-1].params > 3e10 / ratio / SPREAD
    for small, large in pairwise(rungs):
        assert ratio / SPREAD < large.params / small.params < ratio * SPREAD


LAYOUTS = [(2, 1, 1, 1), (8, 1, 1, 1), (8, 1, 4, 1), (4, 2, 2, 2), (8, 8, 4, 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rungs_under_a_layout_rise_smoothly_and_pass_the_check_of_a_run(
    layout: tuple[int, int, int, int],
) -> None:
    tp, cp, pp, interleave = layout
    constraint = Constraint(*layout)
    first = smallest(BYTES, constraint)
    rungs = ladder(first.params, 3e10, 1.7, BYTES, constraint)
    assert rungs[0] == first
    for small, large in pairwise(rungs):
        assert 1.7 / SPREAD < large.params / small.params < 1.7 * SPREAD
    parallel = ParallelConfig(
        processes=tp * cp * pp, tp=tp, cp=cp, pp=pp, interleave=interleave, device="cpu"
    )
    for rung in rungs:
        model = rung.of(BYTES)
        model.check()
        parallel.check(model, packs_per_step=pp)
        assert model.num_heads % (tp * cp) == model.width % tp == 0
        assert model.depth % (pp * interleave) == 0


def test_the_check_refuses_the_free_ladders_shapes_under_a_layout() -> None:
    # So the constraint is one: without it shapes come out that a run would refuse.
    with pytest.raises(ValueError, match=r"parallel\.tp=8: must divide model\.num_heads"):
        Constraint(tp=8).check(shape_for(1e6, BYTES).of(BYTES))


def test_a_size_too_small_for_a_layout_is_refused_with_the_nearest_shapes() -> None:
    with pytest.raises(
        ValueError,
        match=r"params=1e\+05: no feasible shape is near with heads a multiple of tp x cp = 64 and "
        r"depth one of pp x interleave = 4; the closest has \S+ \(width 384, depth 4, heads of 6\)",
    ):
        shape_for(1e5, BYTES, constraint=Constraint(8, 8, 4))


@pytest.mark.parametrize(("key", "value"), [("tp", 0), ("cp", -1), ("pp", 0), ("interleave", 0)])
def test_a_layout_that_is_none_is_refused(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"parallel\.{key}={value}: must be at least 1"):
        shape_for(1e6, BYTES, constraint=replace(Constraint(), **{key: value}))


@pytest.mark.parametrize(("low", "high", "ratio"), [(0, 1e6, 2), (1e6, 1e5, 2), (1e5, 1e6, 1)])
def test_a_ladder_that_does_not_rise_is_refused(low: float, high: float, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"must (rise|be) (from )?above"):
        ladder(low, high, ratio, BYTES)


@pytest.mark.parametrize(
    ("params", "shape"),
    [
        (1.7e4, (16, 1, 16, 16706)), (2.9e4, (24, 1, 24, 29650)), (8.7e4, (48, 1, 48, 87682)),
        (2.2e5, (64, 2, 64, 208676)), (1.5e6, (144, 4, 48, 1608344)),
        (2e9, (1968, 32, 48, 2019796864)),
    ],
)  # fmt: skip
def test_sizes_have_the_shapes_that_studies_were_run_with(
    params: float, shape: tuple[int, int, int, int]
) -> None:
    rung = shape_for(params, BASE)
    assert (rung.width, rung.depth, rung.head_dim, rung.params) == shape


def test_a_ladder_of_one_block_differs_in_width_alone() -> None:
    free = [shape_for(target, BASE) for target in (1e5, 1e6)]
    flat = [shape_for(target, BASE, max_depth=1) for target in (1e5, 1e6)]
    assert {rung.depth for rung in flat} == {1}
    assert max(rung.depth for rung in free) > 1
    assert flat[0].width < flat[1].width
    with pytest.raises(ValueError, match="no feasible shape is near"):
        shape_for(1e10, BASE, max_depth=1)
