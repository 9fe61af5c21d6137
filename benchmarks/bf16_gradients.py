"""Where the error of bf16 gradients comes from: one step, with one part after another in fp32.

usage: python -m benchmarks.bf16_gradients

A network of width 32 and four blocks, all of whose weights are drawn, over packs of small clips.
Each row is a way of computing. Beside it stands the error against fp32 of all gradients together,
of the temperatures of attention (a number a head) and of the parameter that is worst.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.packs import build_sample, our_loss
from models.attention import attend_segments
from models.config import ModelConfig
from models.dit.model import DiT

MODEL = ModelConfig(width=32, depth=4, head_dim=8, text_width=32)
PACKS = [
    [((1, 4, 4), 5), ((3, 5, 8), 4), ((3, 5, 8), 8)],
    [((1, 4, 4), 6), ((2, 6, 6), 7), ((2, 5, 8), 5), ((1, 8, 10), 7)],
]
Gradients = dict[str, Tensor]
Change = Callable[[DiT], None]


def as_it_is(model: DiT) -> None:
    """Change nothing."""


def attentions(model: DiT) -> Iterator[Any]:
    """Yield the attentions of all blocks."""
    for block in model.blocks:
        yield from (block.self_attention, block.cross_attention)


def sums_in_fp32(model: DiT) -> None:
    """Replace gradients of temperatures by products and sums in fp32 of what reaches them."""
    for module in attentions(model):
        sums: list[Tensor] = []

        def attend(q: Tensor, k: Tensor, *rest: Any, module: Any = module, sums: Any = sums) -> Any:
            scaled = q if module.__class__.__name__ == "SelfAttention" else k
            told = (scaled.detach().float() / module.temperature.detach().float()[:, None],)
            scaled.register_hook(lambda g: sums.append((g.float() * told[0]).sum((0, 2))))
            return attend_segments(q, k, *rest)

        def replaced(gradient: Tensor, sums: Any = sums) -> Tensor:
            return sums.pop().to(gradient.dtype)

        module.attend = attend
        module.temperature.register_hook(replaced)


def attention_in_fp32(model: DiT) -> None:
    """Let the kernels of attention compute on fp32 copies."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *segments: Any) -> Tensor:
        return attend_segments(q.float(), k.float(), v.float(), *segments).to(q.dtype)

    for module in attentions(model):
        module.attend = attend


def cross_attention_in_fp32(model: DiT) -> None:
    """Let whole cross-attentions compute in fp32, from rounded weights, between bf16 rows."""
    for block in model.blocks:
        module: Any = block.cross_attention.float()

        def forward(x: Tensor, caption: Tensor, *rest: Any, inner: Any = module.forward) -> Any:
            return inner(x.float(), caption.float(), *rest).to(x.dtype)

        module.forward = forward


def stream_rounded(model: DiT) -> None:
    """Round nothing but the residual stream before each block."""
    for block in model.blocks:

        def forward(x: Tensor, *rest: Any, inner: Any = block.forward) -> Any:
            return inner(x.bfloat16().float(), *rest)

        block.forward = forward


WAYS: list[tuple[str, torch.dtype, bool, Change]] = [
    ("fp32, weights rounded to bf16", torch.float32, True, as_it_is),
    ("fp32, the stream rounded between blocks", torch.float32, False, stream_rounded),
    ("bf16", torch.bfloat16, True, as_it_is),
    ("bf16, sums of temperatures in fp32", torch.bfloat16, True, sums_in_fp32),
    ("bf16, attention kernels in fp32", torch.bfloat16, True, attention_in_fp32),
    ("bf16, cross-attention in fp32", torch.bfloat16, True, cross_attention_in_fp32),
]


def gradients(dtype: torch.dtype, rounded: bool, change: Change) -> Gradients:
    """Return the gradients of a step in double precision."""
    model, generator = DiT(MODEL), torch.Generator().manual_seed(5)
    model.reset_parameters(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            if rounded:
                parameter.copy_(parameter.bfloat16().float())
    model.to(dtype)
    model.restore_buffers(torch.device("cpu"))
    change(model)
    for seed, clips in enumerate(PACKS):
        our_loss(model, build_sample(MODEL, clips, seed)).backward()
    return {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}


def error(found: Gradients, exact: Gradients, names: list[str]) -> float:
    """Return the distance of some gradients as one vector, as a share of their norm."""
    square = sum(float((found[n] - exact[n]).square().sum()) for n in names)
    return float((square / sum(float(exact[n].square().sum()) for n in names)) ** 0.5)


def main() -> None:
    """Print the table."""
    exact = gradients(torch.float32, False, as_it_is)
    everything = [name for name, gradient in exact.items() if gradient.any()]
    temperatures = [name for name in everything if name.endswith("temperature")]
    print("| way | all gradients | temperatures | worst parameter |")
    print("|---|---|---|---|")
    for name, dtype, rounded, change in WAYS:
        found = gradients(dtype, rounded, change)
        each = {n: error(found, exact, [n]) for n in everything}
        worst = max(each, key=lambda n: each[n])
        sums = [100 * error(found, exact, names) for names in (everything, temperatures)]
        print(
            f"| {name} | {sums[0]:.2f} % | {sums[1]:.2f} % | `{worst}` {100 * each[worst]:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
