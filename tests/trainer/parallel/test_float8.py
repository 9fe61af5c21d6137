"""Products in float8: real ones, which CPUs have, too, in the layers that are meant alone."""

import importlib.util
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.architecture import specification_of
from models.config import ModelConfig
from models.dit.model import DiT
from models.objectives.flow import flow_errors
from trainer.gpu_checks.samples import build_batch, build_model
from trainer.layout.config import Recompute
from trainer.parallel import float8
from trainer.parallel.float8 import narrow_products
from trainer.parallel.mesh import alone
from trainer.parallel.recompute import wrap_blocks

MODEL = ModelConfig(width=64, depth=2, text_width=32)
CPU = torch.device("cpu")
LAYERS = [
    "self_attention.qkv",
    "self_attention.out",
    "cross_attention.q",
    "cross_attention.out",
    "mlp.0",
    "mlp.2",
]
needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)


class Counted(TorchDispatchMode):
    """Count products by the kind of tensors that they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            kinds = {type(x).__name__ for x in args}
            self.calls["float8" if "Float8TrainingTensor" in kinds else "other"] += 1
        return func(*args, **(kwargs or {}))


def results(narrow: bool, mode: Recompute = Recompute.none) -> tuple[dict[str, Tensor], Counter]:
    """Return the loss and all gradients of a step in bf16, and how many products there were."""
    network = build_model(MODEL).to(torch.bfloat16)
    network.restore_buffers(CPU)
    if narrow:
        narrow_products(network, specification_of(MODEL), CPU)
    wrap_blocks(list(network.blocks), mode)
    batch = build_batch(MODEL, 512, 0, alone())
    with Counted() as counted:
        loss = flow_errors(network, batch.pack, batch.x_0, batch.t).sum() / batch.values
        loss.backward()
    return {"": loss.detach(), **{n: p.grad for n, p in network.named_parameters()}}, counted.calls


@needs_torchao
def test_the_products_of_blocks_with_rows_are_narrowed_and_no_others() -> None:
    with torch.device("meta"):
        model = DiT(MODEL)
    before = {name: type(module) for name, module in model.named_modules()}
    parameters = [name for name, _ in model.named_parameters()]
    narrow_products(model, specification_of(MODEL), CPU)
    changed = [n for n, module in model.named_modules() if type(module) is not before[n]]
    assert changed == [f"blocks.{i}.{layer}" for i in range(MODEL.depth) for layer in LAYERS]
    assert [name for name, _ in model.named_parameters()] == parameters


@needs_torchao
@pytest.mark.heavy
def test_a_step_in_float8_is_near_that_of_bf16_and_multiplies_in_float8() -> None:
    found, calls = results(narrow=True)
    expected, plain = results(narrow=False)
    # Forward, and the gradients of input and weight.
    assert calls["float8"] == 3 * len(LAYERS) * MODEL.depth
    assert plain["float8"] == 0
    assert found.keys() == expected.keys()
    assert abs(float(found[""] / expected[""]) - 1) < 0.02
    apart = sum(float((found[n].float() - expected[n].float()).square().sum()) for n in expected)
    whole = sum(float(value.float().square().sum()) for value in expected.values())
    assert 1e-3 < (apart / whole) ** 0.5 < 0.1  # e4m3 rounds by up to 6 %, and errors average out


@needs_torchao
@pytest.mark.heavy
def test_selective_recomputation_keeps_float8_products() -> None:
    found, calls = results(narrow=True, mode=Recompute.selective)
    expected, _ = results(narrow=True)
    assert calls["float8"] == 3 * len(LAYERS) * MODEL.depth
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@needs_torchao
def test_a_network_without_linear_layers_is_refused() -> None:
    with torch.device("meta"):
        model = DiT(MODEL)
    model.blocks[1].mlp[0] = torch.nn.Bilinear(64, 1, 64)
    with pytest.raises(ValueError, match=r"^parallel.products=float8: blocks.1.mlp.0 is no linear"):
        narrow_products(model, specification_of(MODEL), CPU)


def test_a_device_without_float8_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "capability_of", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"float8: needs compute capability 8.9, and .* has 8.0"):
        float8.narrow(DiT(MODEL), {"head"}, CPU)


def test_without_torchao_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"^parallel.products=float8: torchao .* 'kinescale\[flo"):
        float8.narrow(DiT(MODEL), {"head"}, CPU)
