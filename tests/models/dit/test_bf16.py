"""A network in bf16 has the gradients of one in fp32, however many rows share a parameter."""

import pytest
import torch

from benchmarks.packs import build_sample, our_loss
from models.attention import attend_segments
from models.config import ModelConfig
from models.dit.blocks import CrossAttention
from models.dit.model import DiT

MODEL = ModelConfig(width=32, depth=2, head_dim=16, text_width=16)
SUMMED = ("modulation", "offset", "cross_attention.norm")  # over all rows of a segment or pack


@pytest.mark.heavy
def test_gradients_of_what_all_rows_share_are_those_of_fp32_within_a_percent() -> None:
    sample = build_sample(MODEL, [((8, 16, 32), 7)])
    exact, rounded = DiT(MODEL), DiT(MODEL)
    generator = torch.Generator().manual_seed(0)
    exact.reset_parameters(generator)
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.bfloat16().float())
    rounded.load_state_dict(exact.state_dict())
    rounded.to(torch.bfloat16)
    rounded.restore_buffers(torch.device("cpu"))
    losses = [our_loss(model, sample) for model in (exact, rounded)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-3)
    pairs = zip(exact.named_parameters(), rounded.parameters(), strict=True)
    errors = {n: float((q.grad.float() - p.grad).norm() / p.grad.norm()) for (n, p), q in pairs}
    chosen = {n: error for n, error in errors.items() if any(part in n for part in SUMMED)}
    assert len(chosen) == 8
    for name, error in chosen.items():  # what goes into the norm is rounded before it is summed
        assert error < (0.02 if "norm" in name else 0.01), (name, error)


@pytest.mark.heavy
def test_the_norm_of_cross_attention_sums_its_weights_gradient_over_65536_rows() -> None:
    rows, attention = 65_536, CrossAttention(MODEL, attend_segments).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, rows, MODEL.width, generator=generator).bfloat16()
    upstream += x / 4
    attention._normed(x).backward(upstream)
    normed = torch.nn.functional.layer_norm(x.double(), (MODEL.width,), eps=1e-6)
    exact, found = (upstream.double() * normed).sum(0), attention.norm.weight.grad
    assert found is not None
    assert float((found.double() - exact).norm() / exact.norm()) < 0.01
