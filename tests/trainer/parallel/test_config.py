"""Layouts that cannot work are refused when the run is composed, with the alternative named."""

import pytest

from models.config import AttentionKernel, ModelConfig, NormKernel
from trainer.layout.config import Gradients, ParallelConfig, Precision, Products, Recompute
from trainer.layout.layout import Layout

MODEL = ModelConfig(width=64, depth=6, head_dim=16)  # four heads
REFUSED = {
    "a data-parallel size that does not divide the packs": (
        ParallelConfig(processes=3),
        r"^data.packs_per_step=4: must be divisible by the data-parallel ranks, dp=3\. Use 3\.$",
    ),
    "axes that do not divide the processes": (
        ParallelConfig(processes=6, tp=2, pp=2),
        r"^parallel.processes=6: must be a multiple of tp x cp x pp = 4\. Use 4\.$",
    ),
    "tensor ranks that do not divide the heads": (
        ParallelConfig(processes=8, tp=8),
        r"^parallel.tp=8: must divide model.num_heads=4\. Use one of 1, 2, 4\.$",
    ),
    "ranks that trade heads and do not divide a tensor rank's heads": (
        ParallelConfig(processes=8, tp=2, cp=4, head_ranks=4),
        r"^parallel.head_ranks=4: must divide a tensor rank's heads=4/2\. Use one of 1, 2\.$",
    ),
    "ranks that trade heads and do not divide the context ranks": (
        ParallelConfig(processes=2, cp=2, head_ranks=4),
        r"^parallel.head_ranks=4: must divide parallel.cp=2\. Use one of 1, 2\.$",
    ),
    "more chunks than blocks": (
        ParallelConfig(processes=4, pp=4, interleave=2),
        r"^parallel.pp x interleave=8: must be at most model.depth=6: .* Use parallel.pp=4 inter",
    ),
    "interleaving without stages": (
        ParallelConfig(interleave=2),
        r"^parallel.interleave=2: must be 1 where parallel.pp=1\. Use parallel.pp=2",
    ),
    "interleaving with too few micro-batches": (
        ParallelConfig(processes=3, pp=3, interleave=2),
        r"^data.packs_per_step=4: gives each rank 4 packs, which must be a multiple of "
        r"parallel.pp=3 to interleave\. Use 3\.$",
    ),
    "ZeRO 3 with stages": (
        ParallelConfig(processes=2, pp=2, zero_stage=3),
        r"^parallel.zero_stage=3: deadlocks with parallel.pp=2, .* Use parallel.zero_stage=1 or 2",
    ),
    "selective recomputation with ZeRO 3": (
        ParallelConfig(zero_stage=3, recompute=Recompute.selective),
        r"^parallel.recompute=selective: with ZeRO 3, .* Use parallel.recompute=full or parallel.z",
    ),
    "selective recomputation in graphs that attention interrupts": (
        ParallelConfig(processes=2, cp=2, compile=True, recompute=Recompute.selective),
        r"^parallel.recompute=selective: with parallel.compile=true .* parallel.cp=2 ranks is",
    ),
    "bf16 without ZeRO": (
        ParallelConfig(precision=Precision.bf16),
        r"^parallel.precision=bf16: ZeRO 0 gets the first update wrong .* Use parallel.zero",
    ),
    "offload without ZeRO": (
        ParallelConfig(offload=True),
        r"^parallel.offload=true: ZeRO 0 has no optimizer state .* Use parallel.zero_stage=1, 2 or",
    ),
    "fp32 gradients in host memory": (
        ParallelConfig(
            zero_stage=1,
            offload=True,
            precision=Precision.bf16,
            gradients=Gradients.fp32,
        ),
        r"^parallel.gradients=fp32: nobody has measured .* Use parallel.offload=false",
    ),
    "a kernel of half precision in fp32": (
        ParallelConfig(attention=AttentionKernel.fa3),
        r"^parallel.attention=fa3: takes half precision only\. Use parallel.precision=bf16 or",
    ),
    "a kernel of CUDA on CPU": (
        ParallelConfig(
            attention=AttentionKernel.te, device="cpu", zero_stage=1, precision=Precision.bf16
        ),
        r"^parallel.attention=te: needs CUDA, and parallel.device=cpu\. Use parallel.device=cuda",
    ),
    "Transformer Engine's norm on CPU": (
        ParallelConfig(norm=NormKernel.te, device="cpu"),
        r"^parallel.norm=te: needs CUDA, .* or parallel.norm=torch\.$",
    ),
    "Transformer Engine's norm in a graph": (
        ParallelConfig(norm=NormKernel.te, compile=True),
        r"^parallel.norm=te: the compiler cannot look into it, .* Use parallel.norm=torch or",
    ),
    "scattered gradients without partitions": (
        ParallelConfig(reduce_scatter=True),
        r"^parallel.reduce_scatter=true: chooses for ZeRO 1 and 2, .*zero_stage=0: .* Use paral",
    ),
    "scattered gradients under ZeRO 3": (
        ParallelConfig(reduce_scatter=True, zero_stage=3),
        r"^parallel.reduce_scatter=true: chooses for ZeRO 1 and 2, .* 3 always scatters\. Use ",
    ),
    "overlap with a reduction that comes last": (
        ParallelConfig(overlap_comm=True, zero_stage=1),
        r"^parallel.overlap_comm=true: ZeRO 1 reduces once, .* Use parallel.zero_stage=2 or 3\.$",
    ),
    "overlap with reductions that wait": (
        ParallelConfig(overlap_comm=True, reduce_scatter=True, zero_stage=2),
        r"^parallel.overlap_comm=true: with parallel.reduce_scatter=true .* Use one of them\.$",
    ),
    "overlap in host memory": (
        ParallelConfig(overlap_comm=True, offload=True, zero_stage=2),
        r"^parallel.overlap_comm=true: nobody has tested it with parallel.offload=true\.",
    ),
    "float8 in fp32": (
        ParallelConfig(products=Products.float8),
        r"^parallel.products=float8: rounds what is bf16 before\. Use parallel.precision=bf16\.$",
    ),
    "float8 of parts": (
        ParallelConfig(
            processes=2, tp=2, zero_stage=1, precision=Precision.bf16, products=Products.float8
        ),
        r"^parallel.products=float8: torchao knows whole layers, and parallel.tp=2 cuts them\.",
    ),
    "float8 with gathered weights": (
        ParallelConfig(zero_stage=3, precision=Precision.bf16, products=Products.float8),
        r"^parallel.products=float8: its layers keep weights that ZeRO 3 .* Use parallel.zero_st",
    ),
    "a size of zero": (ParallelConfig(cp=0), r"^parallel.cp=0: must be at least 1\. Use 1\.$"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_is(case: str) -> None:
    config, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        config.check(MODEL, packs_per_step=4)


ACCEPTED = [
    ParallelConfig(processes=4, tp=4),
    ParallelConfig(processes=4, tp=2, cp=2, zero_stage=3),
    ParallelConfig(processes=8, tp=2, pp=2, zero_stage=2, precision=Precision.bf16),
    ParallelConfig(processes=2, pp=2, interleave=3),
    ParallelConfig(processes=2, pp=2, zero_stage=0),
    ParallelConfig(processes=4, zero_stage=3, offload=True),
]


@pytest.mark.parametrize("config", ACCEPTED, ids=lambda c: f"{c.layout}-zero{c.zero_stage}")
def test_accepted_is(config: ParallelConfig) -> None:
    config.check(MODEL, packs_per_step=4)


def test_data_parallelism_takes_the_processes_that_are_left() -> None:
    assert ParallelConfig(processes=16, tp=2, pp=2).layout == Layout(tp=2, dp=4, pp=2)
