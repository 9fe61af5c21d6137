"""What ranks of large worlds build, hold and send; run in a child process by ``fakes.in_child``."""

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models.attention import attend_segments
from models.config import ModelConfig
from models.pack import TokenPack
from models.precondition import velocity_coefficients
from trainer.layout.config import Precision
from trainer.layout.cost import Work
from trainer.parallel.mesh import _GROUPS, Mesh, join_mesh
from trainer.parallel.rows import own_rows
from trainer.parallel.stage import Stage, build_stage, materialise

from .collectives import Recorder, group_names
from .engines import Setting, measure_setting
from .fakes import fake_world


def build_ranks(model: ModelConfig, setting: Setting, ranks: list[int]) -> list[dict[str, Any]]:
    """Join the mesh and build the stage of several ranks, one after another, on meta."""
    found = []
    for rank in ranks:
        start = time.perf_counter()
        with fake_world(rank, setting.parallel.layout.world):
            mesh = join_mesh(setting.parallel.layout, torch.device("cpu"))
            seconds = time.perf_counter() - start
            stage = build_stage(
                model, setting.parallel, mesh, attend_segments, velocity_coefficients
            )
            named = stage.model.named_parameters()
            found.append(
                {
                    "rank": rank,
                    "seconds": seconds,
                    "groups": {
                        name: dist.get_process_group_ranks(group)
                        for name, group in mesh.groups.items()
                    },
                    "axes": {name: list(_GROUPS[name]) for name in mesh.groups},
                    "shapes": {name: list(p.shape) for name, p in named},
                    "devices": sorted({p.device.type for p in stage.parameters()}),
                    "heads": sorted(
                        {m.num_heads for m in stage.modules() if hasattr(m, "num_heads")}
                    ),
                }
            )
    return found


def fake_step(
    model: ModelConfig, setting: Setting, rank: int, rows: int, lengths: list[int]
) -> dict[str, Any]:
    """Run forward and backward of every chunk of a rank on fake tensors, one micro-batch."""
    with fake_world(rank, setting.parallel.layout.world):
        mesh = join_mesh(setting.parallel.layout, torch.device("cpu"))
        stage = build_stage(model, setting.parallel, mesh, attend_segments, velocity_coefficients)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _materialise(stage, setting, mesh)
            pack = own_rows(_pack(model, rows, lengths), mesh.layout, rank)
            saved: dict[int, int] = {}
            sizes = []
            with Recorder(group_names(mesh.groups)) as recorder:
                for chunk, part in enumerate(stage.chunks):
                    incoming = None
                    if not part.is_first:
                        size = sum(stage.message_sizes(pack))
                        incoming = torch.randn(size, dtype=stage.model.dtype, requires_grad=True)
                    with torch.autograd.graph.saved_tensors_hooks(_keep(saved), lambda t: t):
                        x_t, t = torch.randn_like(pack.latent), torch.rand(len(lengths))
                        out = stage(chunk, pack, x_t, t, incoming)
                    sizes.append(out.numel() * out.element_size())
                    out.sum().backward()
                    assert incoming is None or incoming.grad is not None
        owned = {p.untyped_storage()._cdata for p in stage.parameters()}
        gradients = [p.grad for p in stage.parameters()]
    return {
        "traffic": {f"{k} {g}": [c.calls, c.bytes] for (k, g), c in recorder.counts.items()},
        "messages": [s for s, part in zip(sizes, stage.chunks, strict=True) if not part.is_last],
        "gradients": sum(g.numel() * g.element_size() for g in gradients),
        "params": sum(p.numel() * p.element_size() for p in stage.parameters()),
        "saved": sum(size for storage, size in saved.items() if storage not in owned),
        "rows": [len(pack.latent), len(pack.positions)],
    }


def small_steps(model: ModelConfig, setting: Setting, rank: int) -> dict[str, Any]:
    """Train a step of a narrow model with real tensors and DeepSpeed, as one rank of many."""
    with fake_world(rank, setting.parallel.layout.world):
        return measure_setting(model, setting, zero=True)


def _keep(saved: dict[int, int]) -> Any:
    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    return keep


def _materialise(stage: Stage, setting: Setting, mesh: Mesh) -> None:
    """Give the stage fake parameters, by the code that gives it real ones."""
    bf16 = setting.parallel.precision is Precision.bf16

    def to_empty(device: torch.device) -> None:
        for module in stage.model.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    dtype = torch.bfloat16 if bf16 else torch.float32
                    empty = torch.empty(p.shape, dtype=dtype, device=device)
                    module._parameters[name] = nn.Parameter(empty)

    stage.model.to_empty = to_empty  # type: ignore[assignment, method-assign]
    materialise(stage, lambda names: iter(()), setting.parallel, mesh)


def _pack(model: ModelConfig, rows: int, lengths: list[int]) -> TokenPack:
    segments = len(lengths)
    return TokenPack(
        latent=torch.empty(rows, model.values_per_token),
        valid=torch.ones(rows, model.values_per_token, dtype=torch.bool),
        positions=torch.zeros(rows, 3, dtype=torch.long),
        place=torch.empty(rows, 18),
        segment=torch.zeros(rows, dtype=torch.long),
        lengths=lengths,
        fps=torch.ones(segments),
        caption=torch.empty(7 * segments, model.text_width),
        caption_lengths=[7] * segments,
    )


def fake_work(rows: int, lengths: list[int]) -> Work:
    """Return what ``fake_step`` works on."""
    return Work(rows=rows, spans=len(lengths), captions=7 * len(lengths))
