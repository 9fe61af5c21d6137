"""The ladder of sizes: parameters in, shapes out."""

from dataclasses import replace
from itertools import pairwise

import pytest

from models.config import ModelConfig
from models.count import count_params
from models.dit import DiT
from sweeps.config import compose_study
from sweeps.ladder import Rung, aspect, head_size, shape_for
from trainer.config import compose_run

BASE = compose_run(["experiment=cpu_demo", "horizon.steps=1"]).model
TARGETS = [2e4 * 1.3**step for step in range(46)]  # to 3e9


def shaped(rung: Rung) -> ModelConfig:
    return replace(BASE, width=rung.width, depth=rung.depth, head_dim=rung.head_dim)


def test_neighbouring_targets_give_neighbouring_sizes() -> None:
    rungs = [shape_for(target, BASE) for target in TARGETS]
    for target, rung in zip(TARGETS, rungs, strict=True):
        assert 1 / 1.6 < rung.params / target < 1.6
    for small, large in pairwise(rungs):
        assert 1 <= large.params / small.params < 2.2


def test_stated_parameters_are_the_counted_ones_and_heads_are_whole() -> None:
    for target in TARGETS:
        rung = shape_for(target, BASE)
        assert rung.params == count_params(shaped(rung)).total
        assert rung.width % rung.head_dim == 0
        assert rung.head_dim % 2 == 0


def test_large_shapes_have_the_aspect_of_known_models() -> None:
    assert aspect(1152) == 40
    assert aspect(5120) == pytest.approx(128, rel=0.02)
    for target in (1e8, 1e9, 1e10):
        rung = shape_for(target, replace(BASE, head_dim=64))
        assert 0.5 < rung.width / rung.depth / aspect(rung.width) < 2


def test_every_size_of_the_demo_composes_and_builds_with_its_stated_parameters() -> None:
    study = compose_study(["study=demo"])
    top = study.pilot.params[-1] * (study.budgets[-1] / study.pilot.flops) ** 0.5
    target, rungs = study.grid.min_params, set()
    while target < top * study.grid.spacing**2:
        rungs.add(shape_for(target, BASE))
        target *= 1.4
    assert len(rungs) > 8
    for rung in rungs:
        shape = [f"model.width={rung.width}", f"model.depth={rung.depth}"]
        shape += [f"model.head_dim={rung.head_dim}", "horizon.steps=1"]
        run = compose_run(["experiment=cpu_demo", *shape])
        assert sum(p.numel() for p in DiT(run.model).parameters()) == rung.params


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
