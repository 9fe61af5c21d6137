"""Compiled blocks: one graph for packs of all shapes, in every mode of recompute."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.packs import Sample, build_model, build_sample, our_loss
from models.attention import attend_segments
from models.attention_operator import attend_as_operator
from models.config import ModelConfig
from models.dit.model import DiT
from models.pack import Ragged
from trainer.layout.config import Recompute
from trainer.parallel.recompute import wrap_blocks

SMALL = ModelConfig(width=16, depth=3, head_dim=8)
# Clips (frames, rows, columns) with caption tokens: of other numbers, lengths and captions each.
PACKS: list[list[tuple[tuple[int, int, int], int]]] = [
    [((2, 3, 3), 5), ((1, 4, 4), 0), ((3, 2, 4), 7)],
    [((2, 3, 3), 9), ((2, 4, 4), 3)],
    [((1, 2, 2), 4), ((3, 3, 3), 6), ((1, 5, 5), 2), ((2, 2, 3), 8)],
    [((4, 3, 3), 11), ((1, 3, 4), 1), ((1, 4, 5), 5)],
]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Forget what was compiled, and the settings that compiled blocks need."""
    duck, floats = (
        torch.fx.experimental._config.use_duck_shape,
        torch._dynamo.config.specialize_float,
    )
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.fx.experimental._config.use_duck_shape = duck
    torch._dynamo.config.specialize_float = floats


def results(model: DiT, sample: Sample) -> dict[str, Tensor]:
    """Return loss and gradients of a pack."""
    model.zero_grad()
    loss = our_loss(model, sample)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("mode", list(Recompute))
def test_a_compiled_block_is_one_graph_for_all_packs_and_computes_the_same(mode: Recompute) -> None:
    samples = [build_sample(SMALL, clips, seed) for seed, clips in enumerate(PACKS)]
    plain, compiled = build_model(SMALL), build_model(SMALL)
    wrap_blocks(list(compiled.blocks), mode, compiled=True, backend="aot_eager")
    for sample in samples:
        found, expected = results(compiled, sample), results(plain, sample)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_what_the_compiler_makes_of_it_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # It imports setuptools, which refuses to replace a distutils that other tests have imported.
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    samples = [build_sample(SMALL, clips, seed) for seed, clips in enumerate(PACKS)]
    plain, compiled = build_model(SMALL), build_model(SMALL)
    wrap_blocks(list(compiled.blocks), Recompute.none, compiled=True)
    graphs = []
    for sample in samples:
        found, expected = results(compiled, sample), results(plain, sample)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1:] == graphs[1:2] * 3  # none after the second pack


@pytest.mark.parametrize("size", [8, 12])
def test_attention_as_an_operator_is_the_loop_to_the_bit(size: int) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, keys = (
        Ragged.of([5, 0, 5, 9], torch.device("cpu")),
        Ragged.of([3, 2, 3, 7], torch.device("cpu")),
    )
    shapes = ((rows.total + 4, 2, size), (keys.total + 1, 2, size), (keys.total + 1, 2, size))
    inputs = [torch.randn(shape, generator=draw) for shape in shapes]
    gradient = torch.randn(shapes[0], generator=draw)
    found, expected = (
        _differentiated(attend, inputs, gradient, rows, keys)
        for attend in (attend_as_operator, attend_segments)
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_the_operator_keeps_what_operators_promise() -> None:
    q = torch.randn(7, 2, 8, requires_grad=True)
    rows = Ragged.of([3, 4], torch.device("cpu"))
    operator = torch.ops.kinescale.attend_segments.default
    torch.library.opcheck(operator, (q, q, q, rows.offsets, rows.offsets))


def _differentiated(attend, inputs, gradient, rows, keys) -> list[Tensor]:  # type: ignore[no-untyped-def]
    own = [x.clone().requires_grad_() for x in inputs]
    out = attend(*own, rows, keys)
    out.backward(gradient)
    return [out.detach(), *(x.grad for x in own)]
