"""Every number that stands for the diffusion transformer: what ``test_dit_facts`` holds fast."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from launch.planner.activations import (
    PackShape,
    block_bytes,
    edge_bytes,
    message_bytes,
    pack_bytes,
    rotation_bytes,
    working_bytes,
)
from launch.planner.machine import load_machine
from launch.planner.memory import plan_memory
from launch.planner.network import Network
from launch.planner.speed import Batch, Execution, step_time, training_flops
from models.architecture import specification_of
from models.config import ModelConfig
from models.count import count_flops, count_params
from models.dit.model import DiT
from models.network import initial_values
from models.roles import role_groups
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.layout.cost import Work, checkpoint_bytes, rank_bytes
from trainer.layout.layout import Coordinates
from trainer.layout.shapes import rank_params, rank_shapes
from trainer.layout.stages import cut_chunks, part_costs
from trainer.layout.traffic import step_traffic

TINY = ModelConfig(width=32, depth=2, head_dim=8, text_width=16)
ODD = ModelConfig(
    width=96, depth=3, head_dim=32, mlp_ratio=3, values_per_token=48, spread=[0.5] * 12,
    text_width=40, time_features=10, base_width=32,
)  # fmt: skip
SIZES = {
    "tiny": TINY,
    "odd": ODD,
    "default": ModelConfig(),
    "large": ModelConfig(width=1024, depth=8, head_dim=64),
    "huge": ModelConfig(width=6144, depth=48, head_dim=96),
}
SEGMENTS, CAPTIONS = [1, 77, 512, 4096], [1, 16, 1, 48]
LAYOUTS = {
    "single": ParallelConfig(device="cpu"),
    "dp": ParallelConfig(processes=4, zero_stage=1),
    "tp": ParallelConfig(processes=2, tp=2, zero_stage=1, recompute=Recompute.selective),
    "tp cp": ParallelConfig(processes=8, tp=2, cp=2, zero_stage=3, recompute=Recompute.full),
    "all": ParallelConfig(
        processes=16, tp=2, cp=2, pp=2, zero_stage=2, precision=Precision.bf16,
        recompute=Recompute.selective,
    ),
    "interleaved": ParallelConfig(
        processes=8, pp=2, interleave=2, zero_stage=1, precision=Precision.bf16, compile=True
    ),
}  # fmt: skip


def parameters(model: ModelConfig) -> dict[str, Any]:
    """Return each parameter's shape, role, cut and the sum and square sum of its first value."""
    with torch.device("meta"):
        network = DiT(model)
    values = dict(initial_values(model, torch.Generator().manual_seed(3)))
    found, weights = {}, specification_of(model).weights
    for name, parameter in network.named_parameters():
        split = weights[name].cut
        found[name] = {
            "shape": list(parameter.shape),
            "role": weights[name].role.value,
            "cut": [split.dim, split.groups] if split else None,
            "initial": _moments(values[name]),
        }
    return found


def _moments(value: Tensor) -> list[float]:
    exact = value.double().flatten()
    weight = torch.arange(1, len(exact) + 1, dtype=torch.float64).rsqrt()
    return [float((exact * weight).sum()), float(exact.square().sum())]


def groups(model: ModelConfig) -> list[Any]:
    """Return the optimizer's groups."""
    return [asdict(group) for group in role_groups(DiT(model), model)]


def counts(model: ModelConfig) -> dict[str, Any]:
    """Return parameters and FLOPs by part."""
    passes = (True, False)
    flops = [asdict(count_flops(model, SEGMENTS, CAPTIONS, backward)) for backward in passes]
    return {"params": count_params(model).parts, "flops": flops}


def layouts(model: ModelConfig) -> dict[str, Any]:
    """Return what each rank's layout holds, sends and keeps."""
    found: dict[str, Any] = {"costs": part_costs(model)}
    pack = PackShape(rows=1024, spans=5, captions=61)
    work = Work(rows=1024, spans=5, captions=61, micros=4)
    for label, parallel in LAYOUTS.items():
        if parallel.pp * parallel.interleave > model.depth or model.num_heads % 4:
            continue
        chunks = cut_chunks(model, parallel.pp * parallel.interleave)
        stages = []
        for stage in range(parallel.pp):
            place = Coordinates(pp=stage)
            shapes = rank_shapes(model, parallel.layout, parallel.interleave, place)
            traffic = step_traffic(model, parallel, place, work)
            stages.append({
                "names": len(shapes),
                "params": rank_params(model, parallel.layout, parallel.interleave, place),
                "bytes": asdict(rank_bytes(model, parallel, place)),
                "kept": checkpoint_bytes(model, parallel, place, work),
                "traffic": {n: list(vars(flow).values()) for n, flow in traffic.flows()},
            })  # fmt: skip
        memory = {}
        for machine in ("h100", "cpu2"):
            planned = plan_memory(model, parallel, pack, 4, load_machine(machine))
            memory[machine] = asdict(planned)
        activations = [
            [
                *(block_bytes(model, parallel, pack, gathers, mode) for mode in Recompute),
                edge_bytes(model, parallel, pack, gathers),
                working_bytes(model, parallel, pack, gathers),
                rotation_bytes(model, parallel, pack),
                pack_bytes(model, parallel, pack, 4),
                message_bytes(model, parallel, pack),
            ]
            for gathers in (False, True)
        ]
        found[label] = {
            "chunks": [[len(c.blocks), c.is_first, c.is_last] for c in chunks],
            "stages": stages,
            "memory": memory,
            "activations": activations,
            "time": _times(model, parallel),
        }
    return found


def _times(model: ModelConfig, parallel: ParallelConfig) -> list[Any]:
    network, batch = Network.of(model), Batch(8192, 4096, 2, 64, 4)
    how, machine = Execution.of(parallel, model), load_machine("h100")
    rate = machine.flops_per_second(model, 4096, "bf16")
    seconds = asdict(step_time(network, machine, how, batch))
    return [seconds, training_flops(network, 8192, 4096, 64), rate]


def facts() -> dict[str, Any]:
    """Return all of them, as JSON holds them."""
    return {
        "parameters": {name: parameters(SIZES[name]) for name in ("tiny", "odd")},
        "groups": {name: groups(SIZES[name]) for name in ("tiny", "odd")},
        "counts": {name: counts(model) for name, model in SIZES.items()},
        "layouts": {name: layouts(SIZES[name]) for name in ("tiny", "large", "huge")},
    }
