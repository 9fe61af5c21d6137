"""Modulation of a pack: both ways of computing it give each row what its own segment says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.dit.modulation import Spans, add_gated, modulate
from models.pack import TokenPack
from models.spans import SpanTable

LENGTHS = [3, 1, 4]


def pack(first_row: int = 0, rows: int = 8) -> TokenPack:
    """Return the part of a pack of three segments that begins at ``first_row``."""
    owner = [0, 0, 0, 1, *([2] * 20)]  # padding is the last segment's
    return TokenPack(
        latent=torch.zeros(rows, 4),
        valid=torch.ones(rows, 4, dtype=torch.bool),
        positions=torch.zeros(rows, 3, dtype=torch.long),
        place=torch.zeros(rows, 18),
        segment=torch.tensor(owner[first_row : first_row + rows]),
        lengths=LENGTHS,
        fps=torch.zeros(3),
        caption=torch.zeros(0, 5),
        caption_lengths=[0, 0, 0],
        first_row=first_row,
    )


def draws(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.fixture(params=[False, True], ids=["spans", "gathered"])
def gathers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run once as on CPU and once as in compiled code and on CUDA."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param)
    assert Spans.of(pack()).gathers(torch.zeros(8, 6)) == request.param
    return request.param


# Rows of a deviation of 1e-3 tell what the norm's epsilon is.
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_row_is_normed_scaled_and_shifted_by_its_segment(gathers: bool, size: float) -> None:
    x, shift, scale = draws((8, 6), (3, 6), (3, 6))
    found = modulate(x * size, shift, scale, Spans.of(pack())).detach().numpy()
    for row, owner in enumerate([0, 0, 0, 1, 2, 2, 2, 2]):
        values = x[row].detach().double().numpy() * size
        normed = (values - values.mean()) / np.sqrt(values.var() + 1e-6)
        expected = normed * (1 + scale[owner].detach().numpy()) + shift[owner].detach().numpy()
        assert found[row] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_row_gets_its_segments_gate_times_the_update(gathers: bool) -> None:
    x, gate, y = draws((8, 6), (3, 6), (8, 6))
    found = add_gated(x, gate, y, Spans.of(pack()))
    for row, owner in enumerate([0, 0, 0, 1, 2, 2, 2, 2]):
        torch.testing.assert_close(found[row], x[row] + gate[owner] * y[row])


def test_both_ways_have_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for gathers in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda gathers=gathers: gathers)
        x, shift, scale, gate = inputs = draws((8, 6), (3, 6), (3, 6), (3, 6))
        spans = Spans.of(pack())
        out = add_gated(x, gate, modulate(x, shift, scale, spans), spans)
        found.append(torch.autograd.grad(out.square().sum(), inputs))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_span_of_several_runs_gathers_the_gradients_of_all(monkeypatch) -> None:
    rows = [0, 1, 0, 2, 3, 4, 3, 4]
    table = SpanTable(
        torch.tensor(rows), torch.tensor([0, 0, 1, 2, 2]), torch.zeros(5, dtype=torch.bool),
        [*rows], [1] * 8,
    )  # fmt: skip
    found = []
    for gathers in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda gathers=gathers: gathers)
        x, shift, scale, gate = inputs = draws((8, 6), (5, 6), (5, 6), (5, 6))
        spans = Spans.of(replace(pack(), spans=table))
        out = add_gated(x, gate, modulate(x, shift, scale, spans), spans)
        for row, span in enumerate(rows):
            normed = torch.nn.functional.layer_norm(x[row], (6,), eps=1e-6)
            expected = x[row] + gate[span] * (normed * (1 + scale[span]) + shift[span])
            torch.testing.assert_close(out[row], expected, rtol=1e-4, atol=1e-5)
        found.append(torch.autograd.grad(out.square().sum(), inputs))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 11])
def test_runs_of_any_part_of_the_rows_are_those_of_its_spans(rows: int) -> None:
    whole_pack = [1, 0, 0, 2, 4, 3, 3, 4, *[4] * 20]  # padding is the last span's
    for first_row in range(11):
        held = torch.tensor(whole_pack[first_row : first_row + rows])
        table = SpanTable(
            held, torch.tensor([0, 0, 1, 2, 2]), torch.zeros(5, dtype=torch.bool),
            [1, 0, 2, 4, 3, 4], [1, 2, 1, 1, 2, 1],
        )  # fmt: skip
        spans = Spans.of(replace(pack(first_row, rows), spans=table))
        told = [s for s, n in zip(spans.runs, spans.lengths, strict=True) for _ in range(n)]
        assert told == held.tolist()


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_of_65536_rows_a_segment_are_those_of_double_precision(
    gathers: bool, dtype: torch.dtype
) -> None:
    rows = 65_536
    owner = torch.arange(2).repeat_interleave(rows)
    spans = Spans(owner, [0, 1], [rows, rows])
    generator = torch.Generator().manual_seed(1)
    sizes = [(2 * rows, 16), (2, 16), (2, 16), (2, 16), (2 * rows, 16), (2 * rows, 16)]
    drawn = [torch.randn(size, generator=generator).to(dtype) for size in sizes]
    drawn[-1] += 0.1  # gradients of a segment have a direction in common

    def gradients(spans: Spans, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *inputs, y, upstream = values
        x, shift, scale, gate = (value.requires_grad_() for value in inputs)
        out = add_gated(modulate(x, shift, scale, spans), gate, y, spans)
        return torch.autograd.grad(out, [shift, scale, gate], upstream)

    tables = [value.float() for value in drawn[1:4]]  # as the network gives them, whatever dtype
    found = gradients(spans, drawn[0], *tables, *drawn[4:])
    assert all(
        torch.equal(a, b)
        for a, b in zip(found, gradients(spans, drawn[0], *tables, *drawn[4:]), strict=True)
    )
    x, y, upstream = (drawn[i].detach().double() for i in (0, 4, 5))
    normed = torch.nn.functional.layer_norm(x, (16,), eps=1e-6)
    for name, mine, products in zip(
        ("shift", "scale", "gate"), found, (upstream, upstream * normed, upstream * y), strict=True
    ):
        exact = products.unflatten(0, (2, rows)).sum(1)
        error = float((mine.double() - exact).norm() / exact.norm())
        assert error < (0.01 if dtype == torch.bfloat16 else 1e-5), name


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 11])
def test_spans_of_any_part_of_the_rows_are_the_runs_of_its_segments(rows: int) -> None:
    for first_row in range(11):
        part = pack(first_row, rows)
        spans = Spans.of(part)
        told = [s for s, n in zip(spans.runs, spans.lengths, strict=True) for _ in range(n)]
        assert told == part.segment.tolist()
        assert spans.runs == sorted(set(told))
        assert [len(piece) for piece in spans.split(torch.zeros(rows, 2))] == spans.lengths
