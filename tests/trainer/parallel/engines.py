"""Small real engines whose tensors are weighed and whose collectives are recorded."""

import gc
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig
from models.network import initial_values
from models.objectives.flow import Flow
from models.pack import TokenPack
from trainer.diffusion.ema import PowerEma
from trainer.diffusion.micro_batch import MicroBatch, accumulate
from trainer.layout.config import Gradients, ParallelConfig, Precision, Recompute
from trainer.layout.cost import Work
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import Mesh, join_mesh
from trainer.parallel.rows import own_rows, row_slice

from .collectives import Recorder, group_names

LENGTHS, CAPTIONS = [200, 140, 120], [5, 0, 3]


@dataclass(frozen=True)
class Setting:
    """A layout with what else decides bytes and traffic; ``parallel`` and ``work`` spell it out.

    reduce: how gradients are, "scatter", "overlap" or as by default.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    zero: int = 0
    precision: str = "fp32"
    recompute: str = "none"
    interleave: int = 1
    micros: int = 1
    gradients: str = "own"
    head_ranks: int = 0
    reduce: str = ""

    @property
    def parallel(self) -> ParallelConfig:
        """The configuration of the layout."""
        return ParallelConfig(
            processes=self.tp * self.cp * self.pp * self.dp,
            tp=self.tp,
            cp=self.cp,
            pp=self.pp,
            head_ranks=self.head_ranks,
            interleave=self.interleave,
            zero_stage=self.zero,
            precision=Precision(self.precision),
            gradients=Gradients(self.gradients),
            recompute=Recompute(self.recompute),
            reduce_scatter=self.reduce == "scatter",
            overlap_comm=self.reduce == "overlap",
            device="cpu",
        )

    @property
    def work(self) -> Work:
        """What a rank works on in a step: packs of 512 rows with three segments."""
        captions = sum(max(n, 1) for n in CAPTIONS)
        return Work(rows=512, spans=len(LENGTHS), captions=captions, micros=self.micros)

    @property
    def name(self) -> str:
        """A readable name."""
        parts = [str(self.parallel.layout), f"ZeRO {self.zero}", self.precision]
        parts += [f"recompute {self.recompute}"] if self.recompute != "none" else []
        parts += [f"gradients {self.gradients}"] if self.gradients != "own" else []
        parts += [f"head ranks {self.head_ranks}"] if self.head_ranks else []
        parts += [self.reduce] if self.reduce else []
        parts += [f"interleave {self.interleave}"] if self.interleave > 1 else []
        parts += [f"micros {self.micros}"] if self.micros > 1 else []
        return " ".join(parts)


def token_pack(model: ModelConfig, rows: int) -> TokenPack:
    """Return a pack of random tokens in three segments and some padding."""
    numbers = [i for i, n in enumerate(LENGTHS) for _ in range(n)]
    segment = torch.tensor(numbers + [len(LENGTHS) - 1] * (rows - len(numbers)))
    return TokenPack(
        latent=torch.randn(rows, model.values_per_token),
        valid=torch.ones(rows, model.values_per_token, dtype=torch.bool),
        positions=torch.zeros(rows, 3, dtype=torch.long),
        place=torch.randn(rows, 18),
        segment=segment,
        lengths=LENGTHS,
        fps=torch.ones(len(LENGTHS)),
        caption=torch.randn(sum(CAPTIONS), model.text_width),
        caption_lengths=CAPTIONS,
    )


def micro_batch(model: ModelConfig, mesh: Mesh, rows: int) -> MicroBatch:
    """Return a micro-batch with this rank's rows of a pack."""
    noise = torch.randn(rows, model.values_per_token)[row_slice(rows, mesh.layout, mesh.rank)]
    return MicroBatch(
        pack=own_rows(token_pack(model, rows), mesh.layout, mesh.rank),
        x_0=noise,
        t=torch.full((len(LENGTHS),), 0.5),
        keys=["key"] * len(LENGTHS),
        tokens=sum(LENGTHS),
        values=rows * model.values_per_token,
        flops=0,
    )


def measure_settings(model: ModelConfig, settings: list[Setting]) -> list[dict[str, Any]]:
    """Measure settings one after another as this rank of a process group."""
    return [measure_setting(model, setting) for setting in settings]


def measure_setting(model: ModelConfig, setting: Setting, zero: bool = False) -> dict[str, Any]:
    """Train a step on this rank; return what the engine holds and what it called.

    zero: as for ``Recorder``, on a fake process group.
    """
    before = set(_storages())
    mesh = join_mesh(setting.parallel.layout, torch.device("cpu"))

    def values(names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        return initial_values(model, torch.Generator().manual_seed(0))

    engine = Engine(model, values, OptimConfig(), setting.parallel, mesh)
    ema = PowerEma(engine, 0.1)
    for _ in range(1 if setting.zero == 3 else 0):  # ZeRO 3 learns the order of gathers first
        accumulate(engine, [micro_batch(model, mesh, setting.work.rows)], 1000.0, Flow())
        engine.step(1e-3, lambda norm: True)
    batches = [micro_batch(model, mesh, setting.work.rows) for _ in range(setting.micros)]
    with Recorder(group_names(mesh.groups), zero) as recorder:
        accumulate(engine, batches, 1000.0, Flow())
        held = _weigh(engine, ema)
        del batches
        gc.collect()
        live = {pointer: size for pointer, size in _storages().items() if pointer not in before}
        engine.step(1e-3, lambda norm: True)
    counts = {f"{k} {g}": [c.calls, c.bytes] for (k, g), c in recorder.counts.items()}
    held["live"] = sum(live.values())
    return {"rank": mesh.rank, "bytes": held, "traffic": counts}


def _weigh(engine: Engine, ema: PowerEma) -> dict[str, int]:
    """Return the bytes that an engine holds between the last backward and the step."""
    zero: Any = engine._engine.optimizer
    parameters: list[Any] = list(engine.stage.parameters())
    states = [t for state in engine._optimizer.state.values() for t in state.values() if t.ndim]
    if engine.zero_stage == 0:
        params, masters = parameters, []
    elif engine.zero_stage == 3:
        params, masters = zero.fp16_partitioned_groups_flat, zero.fp32_partitioned_groups_flat
    else:
        params, masters = zero.bit16_groups_flat, zero.single_partition_of_fp32_groups
    if engine.zero_stage < 2:
        gradients = [p.grad if p.grad is not None else p.grad_accum for p in parameters]
    elif engine.zero_stage == 2 and zero.use_separate_grad_accum:
        gradients = [group.flat_partition for group in zero.averaged_gradients.values()]
    elif engine.zero_stage == 2:
        gradients = [t for group in zero.all_grad_tensors.values() for t in group]
    else:
        gradients = [zero.grad_partitions_flat_buffer]
    return {
        "params": _bytes(params),
        "gradients": _bytes(gradients),
        "optimizer": _bytes([*masters, *states]),
        "ema": _bytes(list(ema.average.values())),
    }


def _bytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _storages() -> dict[int, int]:
    """Return address -> bytes of the memory of every tensor that Python knows."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            if storage.nbytes():
                found[storage.data_ptr()] = storage.nbytes()
    return found
