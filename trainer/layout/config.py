"""Schema of a run's layout over processes, and what cannot work, refused by name; torch-free."""

from dataclasses import dataclass
from enum import StrEnum
from math import gcd
from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from data.bounds import check_bounds
from models.config import AttentionKernel, ModelConfig, NormKernel
from trainer.layout.layout import Layout

Count = Annotated[int, Ge(1)]
DEVICES = ("auto", "cpu", "cuda")
FLOAT8_MULTIPLE = 16  # of both dimensions of a weight: cuBLAS's rule for float8


class Precision(StrEnum):
    """Arithmetic of forward and backward; master weights are always fp32."""

    fp32 = "fp32"
    bf16 = "bf16"


class Gradients(StrEnum):
    """Arithmetic in which gradients are added up over micro-batches and ranks."""

    own = "own"
    fp32 = "fp32"


class Products(StrEnum):
    """Arithmetic of the blocks' products over rows: the precision's own, or float8."""

    own = "own"
    float8 = "float8"


class Recompute(StrEnum):
    """What the backward pass computes again instead of keeping: nothing, all but matrix products
    and attention (selective), or whole blocks (full)."""

    none = "none"
    selective = "selective"
    full = "full"


@dataclass
class ParallelConfig:
    """How a run is laid out over processes and computed.

    Only precision, gradients and products change its numbers by more than the order of sums.
    """

    processes: Annotated[
        Count, Doc("Ranks of all axes; what tp, cp and pp leave is data parallel.")
    ] = 1
    tp: Annotated[Count, Doc("Tensor parallel ranks, with sequence parallelism.")] = 1
    cp: Annotated[Count, Doc("Context parallel ranks, which share the rows of a pack.")] = 1
    head_ranks: Annotated[
        int,
        Ge(0),
        Doc(
            "How many neighbouring context ranks trade rows for heads (Ulysses); groups of them "
            "gather keys and values from each other. 0: as many as divide cp and the heads."
        ),
    ] = 0
    pp: Annotated[Count, Doc("Pipeline stages (1F1B).")] = 1
    interleave: Annotated[Count, Doc("Chunks of blocks that each pipeline stage holds.")] = 1
    zero_stage: Annotated[int, Ge(0), Le(3), Doc("Stage of DeepSpeed's ZeRO.")] = 0
    reduce_scatter: Annotated[
        bool,
        Doc(
            "Under ZeRO 1 and 2 reduce each gradient to the rank that owns it alone: half the "
            "bytes of the all-reduce that is DeepSpeed's default. ZeRO 3 always does."
        ),
    ] = False
    overlap_comm: Annotated[
        bool,
        Doc(
            "Under ZeRO 2 and 3 reduce gradients in smaller buckets while the backward pass goes "
            "on, in a stream of their own."
        ),
    ] = False
    offload: Annotated[bool, Doc("Keep the optimizer state in host memory.")] = False
    recompute: Annotated[
        Recompute,
        Doc(
            "Activation checkpointing: none, all but matrix products and attention "
            "(selective), or whole blocks (full)."
        ),
    ] = Recompute.none
    attention: Annotated[
        AttentionKernel,
        Doc(
            "Kernel of attention: auto (the best that runs here), loop (any device), varlen "
            "(torch's, FA2), fa3 (torch's with FA3), flash (the package flash-attn) or te "
            "(Transformer Engine). One that cannot run is refused."
        ),
    ] = AttentionKernel.auto
    norm: Annotated[
        NormKernel,
        Doc("Kernel of the norm before modulation: torch, or te (Transformer Engine, CUDA)."),
    ] = NormKernel.torch
    compile: Annotated[bool, Doc("Put every block through torch.compile.")] = False
    device: Annotated[str, Doc("auto (CUDA where there is one), cpu or cuda.")] = "auto"
    precision: Annotated[
        Precision, Doc("Arithmetic of forward and backward; master weights are always fp32.")
    ] = Precision.fp32
    gradients: Annotated[
        Gradients,
        Doc(
            "Arithmetic in which gradients are added up over micro-batches and ranks: the "
            "precision's own, or fp32, which bf16 pays for in memory (trainer/layout/cost.py)."
        ),
    ] = Gradients.own
    products: Annotated[
        Products,
        Doc(
            "Arithmetic of the blocks' products over rows: the precision's own, or float8 "
            "(torchao, scaled by tensor; weights stay bf16), which makes another experiment."
        ),
    ] = Products.own
    timeout_seconds: Annotated[float, Gt(0), Doc("How long a collective may wait in training.")] = (
        300.0
    )
    start_timeout_seconds: Annotated[
        float,
        Gt(0),
        Doc(
            "How long a collective may wait before the first step, while ranks load or draw "
            "weights; at least timeout_seconds, and the watchdog allows as much."
        ),
    ] = 1800.0
    check_every: Annotated[
        Count,
        Doc("Steps between checks that replicated parameters are equal bits on all tensor ranks."),
    ] = 100

    @property
    def widens_gradients(self) -> bool:
        """Whether gradients are added up in more than the network's own precision."""
        return self.precision is not Precision.fp32 and self.gradients is Gradients.fp32

    @property
    def layout(self) -> Layout:
        """The layout: data parallelism takes the processes that the other axes leave."""
        replica = self.tp * self.cp * self.pp
        return Layout(self.tp, self.cp, self.processes // replica, self.pp)

    def context_split(self, num_heads: int) -> tuple[int, int]:
        """Return how context ranks are split: those that trade heads, and those that gather keys.

        num_heads: of the model; tensor ranks hold an equal share of them each.
        """
        heads = self.head_ranks or gcd(self.cp, num_heads // self.tp)
        return heads, self.cp // heads

    def check(self, model: ModelConfig, packs_per_step: int) -> None:
        """Raise ValueError on a layout that does not divide, or that cannot work."""
        check_bounds(self, "parallel.")
        if self.device not in DEVICES:
            raise ValueError(
                f"parallel.device={self.device}: must be one of {', '.join(DEVICES)}. Use auto."
            )
        _check_division(self, model, packs_per_step)
        _check_combination(self)
        _check_products(self, model)


def _check_division(parallel: ParallelConfig, model: ModelConfig, packs: int) -> None:
    tp, cp, pp = parallel.tp, parallel.cp, parallel.pp
    if parallel.processes % (tp * cp * pp):
        raise ValueError(
            f"parallel.processes={parallel.processes}: must be a multiple of tp x cp x pp = "
            f"{tp * cp * pp}. Use {max(1, parallel.processes // (tp * cp * pp)) * tp * cp * pp}."
        )
    heads = model.num_heads
    for key, value, total, of in (
        ("tp", tp, heads, f"model.num_heads={heads}"),
        (
            "head_ranks",
            parallel.head_ranks or 1,
            heads // tp,
            f"a tensor rank's heads={heads}/{tp}",
        ),
        ("head_ranks", parallel.head_ranks or 1, cp, f"parallel.cp={cp}"),
    ):
        if total % value:
            choices = ", ".join(str(n) for n in range(1, total + 1) if total % n == 0)
            raise ValueError(f"parallel.{key}={value}: must divide {of}. Use one of {choices}.")
    chunks = pp * parallel.interleave
    if chunks > model.depth:
        raise ValueError(
            f"parallel.pp x interleave={chunks}: must be at most model.depth={model.depth}: every "
            f"chunk holds a block. Use parallel.pp={min(pp, model.depth)} interleave=1."
        )
    if parallel.interleave > 1 and pp == 1:
        raise ValueError(
            f"parallel.interleave={parallel.interleave}: must be 1 where parallel.pp=1. "
            "Use parallel.pp=2 or interleave=1."
        )
    dp = parallel.layout.dp
    if packs % dp:
        raise ValueError(
            f"data.packs_per_step={packs}: must be divisible by the data-parallel ranks, dp={dp}. "
            f"Use {dp * max(1, packs // dp)}."
        )
    if parallel.interleave > 1 and packs // dp % pp:
        remedy = dp * pp * max(1, packs // dp // pp)
        raise ValueError(
            f"data.packs_per_step={packs}: gives each rank {packs // dp} packs, which must be a "
            f"multiple of parallel.pp={pp} to interleave. Use {remedy}."
        )


def _check_combination(parallel: ParallelConfig) -> None:
    """Refuse what is known not to work, with the alternative (docs/decisions/005, 019)."""
    _check_kernels(parallel)
    stage = parallel.zero_stage
    if parallel.precision is Precision.bf16 and stage == 0:
        raise ValueError(
            "parallel.precision=bf16: ZeRO 0 gets the first update wrong in bf16. "
            "Use parallel.zero_stage=1 or parallel.precision=fp32."
        )
    if stage == 3 and parallel.pp > 1:
        raise ValueError(
            f"parallel.zero_stage=3: deadlocks with parallel.pp={parallel.pp}, whose stages gather "
            "parameters at different times. Use parallel.zero_stage=1 or 2, or parallel.pp=1."
        )
    if stage == 3 and parallel.recompute is Recompute.selective:
        raise ValueError(
            "parallel.recompute=selective: with ZeRO 3, which gathers weights inside blocks, what "
            "was kept is not found again. Use parallel.recompute=full or parallel.zero_stage=2."
        )
    if parallel.compile and parallel.cp > 1 and parallel.recompute is Recompute.selective:
        raise ValueError(
            "parallel.recompute=selective: with parallel.compile=true the compiler must see what "
            f"is kept, and attention over parallel.cp={parallel.cp} ranks is outside of its "
            "graphs. Use parallel.recompute=full or none."
        )
    _check_reductions(parallel)
    if parallel.offload and parallel.widens_gradients:
        raise ValueError(
            "parallel.gradients=fp32: nobody has measured what DeepSpeed adds up in host memory. "
            "Use parallel.offload=false or parallel.gradients=own."
        )
    if parallel.offload and stage == 0:
        raise ValueError(
            "parallel.offload=true: ZeRO 0 has no optimizer state to offload. "
            "Use parallel.zero_stage=1, 2 or 3."
        )


def _check_reductions(parallel: ParallelConfig) -> None:
    """Refuse ways to reduce gradients that the ZeRO stage does not have (docs/decisions/019)."""
    stage, scatters, overlaps = parallel.zero_stage, parallel.reduce_scatter, parallel.overlap_comm
    if scatters and stage not in (1, 2):
        raise ValueError(
            f"parallel.reduce_scatter=true: chooses for ZeRO 1 and 2, and parallel.zero_stage="
            f"{stage}: 0 needs every gradient everywhere, 3 always scatters. "
            "Use parallel.reduce_scatter=false."
        )
    if overlaps and stage not in (2, 3):
        raise ValueError(
            f"parallel.overlap_comm=true: ZeRO {stage} reduces once, after the last backward pass, "
            "so nothing is left to overlap with. Use parallel.zero_stage=2 or 3."
        )
    if scatters and overlaps:
        raise ValueError(
            "parallel.overlap_comm=true: with parallel.reduce_scatter=true DeepSpeed waits for the "
            "device before each reduction, so nothing overlaps. Use one of them."
        )
    if parallel.offload and (scatters or overlaps):
        key = "reduce_scatter" if scatters else "overlap_comm"
        raise ValueError(
            f"parallel.{key}=true: nobody has tested it with parallel.offload=true. "
            "Use either of them."
        )


def _check_kernels(parallel: ParallelConfig) -> None:
    """Refuse kernels that no machine could run so; ``models.kernels`` knows what this one can."""
    attention, norm = parallel.attention, parallel.norm
    anywhere = attention in (AttentionKernel.auto, AttentionKernel.loop)
    if not anywhere and parallel.precision is Precision.fp32:
        raise ValueError(
            f"parallel.attention={attention.value}: takes half precision only. "
            "Use parallel.precision=bf16 or parallel.attention=auto."
        )
    for key, kernel, instead in (
        ("attention", None if anywhere else attention, "auto"),
        ("norm", None if norm is NormKernel.torch else norm, "torch"),
    ):
        if kernel is not None and parallel.device == "cpu":
            raise ValueError(
                f"parallel.{key}={kernel.value}: needs CUDA, and parallel.device=cpu. "
                f"Use parallel.device=cuda or parallel.{key}={instead}."
            )
    if norm is NormKernel.te and parallel.compile:
        raise ValueError(
            "parallel.norm=te: the compiler cannot look into it, and fuses torch's norm with what "
            "follows. Use parallel.norm=torch or parallel.compile=false."
        )


def _check_products(parallel: ParallelConfig, model: ModelConfig) -> None:
    """Refuse float8 where nobody has tried it, or where its kernels do not fit (decision 019)."""
    if parallel.products is Products.own:
        return
    told = "parallel.products=float8:"
    if parallel.precision is not Precision.bf16:
        raise ValueError(f"{told} rounds what is bf16 before. Use parallel.precision=bf16.")
    if parallel.tp > 1:
        raise ValueError(
            f"{told} torchao knows whole layers, and parallel.tp={parallel.tp} cuts them. "
            "Use parallel.tp=1 with parallel.cp, or parallel.products=own."
        )
    if parallel.zero_stage == 3:
        raise ValueError(
            f"{told} its layers keep weights that ZeRO 3 has gathered until the backward pass. "
            "Use parallel.zero_stage=1 or 2."
        )
    if model.width % FLOAT8_MULTIPLE:
        raise ValueError(
            f"{told} its kernels take widths of a multiple of {FLOAT8_MULTIPLE}, and model.width="
            f"{model.width}. Use parallel.products=own, or another width."
        )
