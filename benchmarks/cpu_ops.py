"""Why the model uses the operations it uses on CPU: forward plus backward, side by side.

usage: python -m benchmarks.cpu_ops        (make bench)

Prints milliseconds and the ratio to the operation in use; one thread, fp32. docs/decisions/004.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, rms_norm, scaled_dot_product_attention

ROUNDS = 60


def seconds(work: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return the median time of a forward and backward pass."""
    gradient = torch.randn_like(work(x))
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        torch.autograd.grad(work(x), x, gradient)
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def rotations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return two ways to rotate pairs of (950, 2, 6, 16)."""
    angle = torch.randn(950, 1, 1, 8)
    cosine, sine, unit = angle.cos(), angle.sin(), torch.polar(torch.ones_like(angle), angle)

    def real(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)

    def complex_product(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * unit).flatten(-2)

    return {"complex product": complex_product, "sines and concatenation": real}


def attention(heads: int) -> Callable[[Tensor], Tensor]:
    """Return self-attention over (400, 48) with a number of heads."""

    def attend(x: Tensor) -> Tensor:
        split = x.view(1, 400, heads, -1).transpose(1, 2)
        return scaled_dot_product_attention(split, split, split)

    return attend


def cases() -> dict[str, tuple[tuple[int, ...], dict[str, Callable[[Tensor], Tensor]]]]:
    """Return title -> (shape, ways); the first way is the one in use."""
    return {
        "norm of queries and keys": (
            (950, 2, 6, 16),
            {
                "LayerNorm": lambda x: layer_norm(x, (16,)),
                "RMSNorm": lambda x: rms_norm(x, (16,)),
            },
        ),
        "norm before modulation": (
            (950, 96),
            {
                "LayerNorm": lambda x: layer_norm(x, (96,)),
                "RMSNorm": lambda x: rms_norm(x, (96,)),
            },
        ),
        "activation": (
            (950, 384),
            {"exact GELU": gelu, "tanh GELU": lambda x: gelu(x, approximate="tanh")},
        ),
        "rotary embedding": ((950, 2, 6, 16), rotations()),
        "attention heads at width 48": (
            (400, 48),
            {"1 head": attention(1), "3 heads": attention(3), "6 heads": attention(6)},
        ),
    }


def main() -> None:
    """Time every case, interleaved within it, and print a table."""
    torch.set_num_threads(1)
    print(f"{'operation':<30}{'way':<26}{'ms':>8}{'ratio':>8}")
    for title, (shape, ways) in cases().items():
        x = torch.randn(shape, requires_grad=True)
        found = {name: seconds(work, x) for name, work in ways.items()}
        base = next(iter(found.values()))
        for name, spent in found.items():
            print(f"{title:<30}{name:<26}{spent * 1e3:>8.2f}{spent / base:>8.2f}")


if __name__ == "__main__":
    main()
