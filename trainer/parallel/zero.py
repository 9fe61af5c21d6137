"""DeepSpeed's engine: its settings, and the mesh in its words; the only file that imports it."""

import logging
import os
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.layout.config import ParallelConfig, Precision
from trainer.layout.cost import reduce_bucket
from trainer.optim_config import AdamConfig
from trainer.parallel.mesh import Mesh


def zero_settings(optim: AdamConfig, parallel: ParallelConfig, params: int) -> dict[str, object]:
    """Return DeepSpeed's settings for a rank with ``params`` parameters."""
    zero: dict[str, object] = {
        "stage": parallel.zero_stage,
        "overlap_comm": parallel.overlap_comm,
        "use_multi_rank_bucket_allreduce": not parallel.reduce_scatter,
        "reduce_bucket_size": reduce_bucket(params, parallel),
        "stage3_param_persistence_threshold": 0,
    }
    if parallel.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    wide: dict[str, object] = {}
    if parallel.widens_gradients:
        wide = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return wide | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Our plan decides which micro-batches make a step, so DeepSpeed must not count them.
        "managed_gradient_accumulation": False,
        "gradient_clipping": optim.clip if parallel.zero_stage else 0.0,
        "steps_per_print": 10**12,
        "bf16": {"enabled": parallel.precision is Precision.bf16},
        # The named optimizers compile for minutes; torch's AdamW is "untested" but exact.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }


class _ModelParallelUnit:
    """The mesh in the words of Megatron-LM, as DeepSpeed asks for it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._replicas = mesh.groups.get("replicas", dist.group.WORLD)
        self._model = mesh.groups.get("model", dist.group.WORLD)

    def get_data_parallel_group(self) -> object:
        return self._replicas

    def get_data_parallel_world_size(self) -> int:
        return self._mesh.layout.replicas

    def get_data_parallel_rank(self) -> int:
        return dist.get_rank(self._replicas)

    def get_model_parallel_group(self) -> object:
        return self._model

    def get_model_parallel_world_size(self) -> int:
        return self._mesh.layout.tp * self._mesh.layout.pp

    def get_model_parallel_rank(self) -> int:
        return dist.get_rank(self._model)

    def get_tensor_model_parallel_rank(self) -> int:
        return self._mesh.place.tp

    def get_tensor_model_parallel_world_size(self) -> int:
        return self._mesh.layout.tp

    def get_pipeline_model_parallel_world_size(self) -> int:
        return self._mesh.layout.pp


def initialize(
    stage: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, object], mesh: Mesh
) -> Any:
    """Return DeepSpeed's engine around a rank's part of a model."""
    os.environ.setdefault("DS_ACCELERATOR", mesh.device.type)
    engine, *_ = import_engine().initialize(
        model=stage, optimizer=optimizer, config=config, mpu=_ModelParallelUnit(mesh)
    )
    return engine


def partition_empty(
    model: nn.Module, dtype: torch.dtype, config: dict[str, object], mesh: Mesh
) -> None:
    """Give a model on meta the parameters of ZeRO 3, zeros, and never two of them whole at a time.

    DeepSpeed by itself begins with the whole model on every device.
    """
    os.environ.setdefault("DS_ACCELERATOR", mesh.device.type)
    import_engine()
    from deepspeed.runtime.zero.partition_parameters import Init

    unit = _ModelParallelUnit(mesh)
    first: Any = None
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            own = nn.Parameter(torch.zeros(parameter.shape, dtype=dtype, device=mesh.device))
            module._parameters[name] = own
            if first is None:
                first, alone = own, nn.Module()
                alone.register_parameter("first", own)
                group = unit.get_data_parallel_group()
                Init(
                    alone, data_parallel_group=group, dtype=dtype, config_dict_or_path=config,
                    mpu=unit,
                )  # fmt: skip
            else:
                first.convert_to_zero_parameters([own])


@cache
def import_engine() -> Any:
    """Return the module, quiet and with our engine; ``DS_ACCELERATOR`` says for which device."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    __compatible_ops__["deepspeed_shm_comm"] = False  # compiles for half a minute, gains nothing
    deepspeed.DeepSpeedEngine = _engine_class()  # what initialize() makes one of
    return deepspeed


@cache
def _engine_class() -> type:
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION

    class ZeroEngine(DeepSpeedEngine):
        """Under ZeRO always ZeRO's optimizer.

        For stage 1 with fp32 gradients DeepSpeed would choose one whose state is laid out in
        another way and that fails on a gradient of zeros.
        """

        def _do_optimizer_sanity_check(self, basic_optimizer: object) -> object:
            found = super()._do_optimizer_sanity_check(basic_optimizer)
            return ZERO_OPTIMIZATION if self.zero_optimization() else found

    return ZeroEngine
