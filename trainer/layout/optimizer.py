"""Which optimizer updates which parameter, what it keeps of it, and where it works; torch-free.

An optimizer is a line of this file and a class behind one gate (trainer/parallel/optimizer.py):
what its state is called, how large it is, and which layouts it takes follow from here.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from math import ceil, prod

from models.architecture import Role, Weight, specification_of
from models.config import ModelConfig
from trainer.layout.config import ParallelConfig
from trainer.layout.layout import Coordinates
from trainer.layout.shapes import part_shape, rank_weights

NEWTON_SCHULZ_STEPS = 5  # Jordan et al. 2024
MOMENTS = ("exp_avg", "exp_avg_sq")  # kinds of state in checkpoints; Muon's momentum is the first


class OptimizerKind(StrEnum):
    """How weights are updated.

    adamw: all by AdamW (Loshchilov and Hutter 2019). muon: the matrices of blocks by Muon (Jordan
    et al. 2024), the rest by AdamW.
    """

    adamw = "adamw"
    muon = "muon"


def orthogonal_names(model: ModelConfig, kind: OptimizerKind) -> frozenset[str]:
    """Return the parameters whose updates are made orthogonal: matrices inside of blocks."""
    if kind is not OptimizerKind.muon:
        return frozenset()
    weights = specification_of(model).weights.items()
    return frozenset(
        name
        for name, weight in weights
        if name.startswith("blocks.") and weight.role is Role.matrix and len(weight.shape) == 2
    )


def moments_of(orthogonal: bool) -> tuple[str, ...]:
    """Return the kinds of state that are kept of a parameter."""
    return MOMENTS[:1] if orthogonal else MOMENTS


def moments_per_param(model: ModelConfig, kind: OptimizerKind) -> float:
    """Return how many moments are kept of a parameter, on average over the model."""
    orthogonal, weights = orthogonal_names(model, kind), specification_of(model).weights
    kept = sum(prod(w.shape) * len(moments_of(n in orthogonal)) for n, w in weights.items())
    return kept / sum(prod(weight.shape) for weight in weights.values())


def update_groups(
    weights: Iterable[Weight], orthogonal: frozenset[str]
) -> list[tuple[list[Weight], bool]]:
    """Return the groups that are updated alike, and whether theirs are orthogonal updates.

    Without weight decay, with it, and what is made orthogonal; empty ones are left out. Within a
    group, embeddings come before vectors and matrices before the head.
    """
    roles: dict[Role, list[Weight]] = {role: [] for role in Role}
    apart: list[Weight] = []
    for weight in weights:
        (apart if weight.name in orthogonal else roles[weight.role]).append(weight)
    plain = roles[Role.embedding] + roles[Role.vector]
    decayed = roles[Role.matrix] + roles[Role.head]
    found = [(plain, False), (decayed, False), (apart, True)]
    return [(group, is_orthogonal) for group, is_orthogonal in found if group]


def update_bytes(
    model: ModelConfig, parallel: ParallelConfig, place: Coordinates, kind: OptimizerKind
) -> int:
    """Return the most bytes that orthogonal updates take on the way, in fp32.

    The momenta looked ahead and the directions of all matrices, which tensor ranks hold whole; and
    of the shape that most have, what a step of the polynomial reads and writes.
    """
    apart, shapes = orthogonal_names(model, kind), dict[tuple[int, ...], int]()
    held = rank_weights(model, parallel.layout, parallel.interleave, place)
    for name, weight in held.items():
        if name in apart:
            groups = weight.cut.groups if weight.cut is not None else 1
            block = tuple(sorted((weight.shape[0] // groups, weight.shape[1])))
            shapes[block] = shapes.get(block, 0) + weight.size
    largest = max((4 * size for size in shapes.values()), default=0)
    return 4 * (2 * sum(shapes.values()) + largest)


@dataclass(frozen=True)
class UpdateWork:
    """What a rank does once a step to make updates orthogonal.

    flops: of the polynomial's products. gathered: fp32 bytes it hands to the gather of momenta over
    the ranks that share a replica's state; joined: over tensor ranks, whose parts it completes.
    """

    flops: int = 0
    gathered: int = 0
    joined: int = 0


def update_works(
    model: ModelConfig, parallel: ParallelConfig, stage: int, kind: OptimizerKind
) -> list[UpdateWork]:
    """Return the work of orthogonal updates of a pipeline stage (trainer/parallel/muon.py).

    One entry a rank that shares a replica's state, in their order. Under ZeRO 0 each works on all
    matrices of the stage; under ZeRO 1 and 2 on those that reach into its partition, whole. A
    matrix of R x C, R <= C, takes five steps of three products: 4 R^2 C + 2 R^3 each.
    """
    layout, apart = parallel.layout, orthogonal_names(model, kind)
    held = rank_weights(model, layout, parallel.interleave, Coordinates(pp=stage))
    matrices = [weight for name, weight in held.items() if name in apart]
    sizes = [prod(part_shape(weight, layout.tp)) for weight in matrices]
    flops = [_orthogonal_flops(weight) for weight in matrices]
    cut = [
        size if weight.cut is not None and layout.tp > 1 else 0
        for size, weight in zip(sizes, matrices, strict=True)
    ]
    if not parallel.zero_stage:
        return [UpdateWork(sum(flops), 0, 4 * sum(cut))] * layout.replicas
    partition = ceil(sum(sizes) / (2 * layout.replicas)) * 2  # padded as DeepSpeed pads it
    ends, found = list(accumulate(sizes)), []
    for low in range(0, layout.replicas * partition, max(partition, 1)):
        mine = slice(bisect_right(ends, low), bisect_left(ends, low + partition) + 1)
        gathered = 4 * partition if layout.replicas > 1 else 0
        found.append(UpdateWork(sum(flops[mine]), gathered, 4 * sum(cut[mine])))
    return found


def _orthogonal_flops(weight: Weight) -> int:
    groups = weight.cut.groups if weight.cut is not None else 1
    rows, columns = sorted((weight.shape[0] // groups, weight.shape[1]))
    return groups * NEWTON_SCHULZ_STEPS * (4 * rows**2 * columns + 2 * rows**3)


def check_optimizer(kind: OptimizerKind, model: ModelConfig, parallel: ParallelConfig) -> None:
    """Raise ValueError where an optimizer cannot work under a layout, with the alternative.

    Muon needs whole matrices. ZeRO 0 has them, ZeRO 1 and 2 gather what reaches into a partition,
    and tensor ranks gather their parts.
    """
    if kind is OptimizerKind.adamw:
        return
    if parallel.zero_stage == 3:
        raise ValueError(
            f"optim.kind={kind}: needs whole matrices, of which ZeRO 3 leaves each rank a shard. "
            "Use parallel.zero_stage=2, or optim.kind=adamw."
        )
    if parallel.offload:
        raise ValueError(
            f"optim.kind={kind}: multiplies matrices on the device, and parallel.offload leaves "
            "its state in host memory. Use parallel.offload=false, or optim.kind=adamw."
        )
    if parallel.zero_stage and parallel.pp > 1:
        held = {_kinds(model, parallel, stage, kind) for stage in range(parallel.pp)}
        if len(held) > 1:
            raise ValueError(
                f"optim.kind={kind}: with parallel.zero_stage={parallel.zero_stage} and "
                f"parallel.pp={parallel.pp} a stage between the first and the last holds no matrix "
                "for AdamW, and DeepSpeed adds up norms group by group over all stages. Use "
                "parallel.zero_stage=0, or parallel.pp=2."
            )


def _kinds(
    model: ModelConfig, parallel: ParallelConfig, stage: int, kind: OptimizerKind
) -> tuple[bool, ...]:
    place = Coordinates(pp=stage)
    held = rank_weights(model, parallel.layout, parallel.interleave, place)
    groups = update_groups(held.values(), orthogonal_names(model, kind))
    return tuple(is_orthogonal for _, is_orthogonal in groups)
