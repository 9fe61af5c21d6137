"""The DeepSpeed engine around a finished model; the only file that imports DeepSpeed.

What the rest of the trainer sees: backward, step, and the *fragments* of optimizer state this rank
owns, by parameter name, whatever the ZeRO stage. DeepSpeed's own checkpoints are never used: they
unpickle.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.pack import TokenPack
from models.roles import RoleGroup
from trainer.config import OptimConfig, ParallelConfig, Precision
from trainer.parallel.layout import Layout


@dataclass(frozen=True)
class Fragment:
    """A flat piece of one parameter that this rank owns; the tensors are views, write in place.

    start: first element in the flattened parameter; tensors: ``param`` (fp32 master),
    ``exp_avg`` and ``exp_avg_sq``, all of one length.
    """

    name: str
    start: int
    tensors: dict[str, Tensor]


class Engine:
    """A model under DeepSpeed ZeRO 0, 1, 2 or 3 with AdamW."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[RoleGroup],
        optim: OptimConfig,
        parallel: ParallelConfig,
        layout: Layout,
    ) -> None:
        self.layout, self.stage, self._clip = layout, parallel.zero_stage, optim.clip
        self._names = [name for name, _ in model.named_parameters()]
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        self._grad_norm = 0.0
        self._optimizer = _build_optimizer(model, groups, optim)
        if self.stage == 0:
            # DeepSpeed clips without telling the norm at stage 0; gradients are whole here.
            self._optimizer.register_step_pre_hook(lambda *_: self._clip_whole_gradients())
        self._engine = _initialize(
            model, self._optimizer, _deepspeed_config(optim, parallel), layout
        )
        self._parameters = dict(zip(self._names, self._engine.module.parameters(), strict=True))
        self._create_state()

    def __call__(self, pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
        """Run the model forward."""
        return self._engine(pack, x_t, t)

    def backward(self, error_sum: Tensor, denominator: float) -> None:
        """Accumulate the gradient of this micro-batch's share of the global loss.

        error_sum: this micro-batch's summed error; denominator: the whole step's, over all ranks.
        DeepSpeed averages over ranks, hence the factor of the world size.
        """
        loss = error_sum * (self.layout.world / denominator)
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, lr: float) -> float:
        """Reduce, clip, update; return the global gradient norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self._engine.step()
        if self.stage:
            self._grad_norm = float(self._engine.get_global_grad_norm() or 0.0)
        return self._grad_norm

    def fragments(self) -> Iterator[Fragment]:
        """Yield the fragments of master weights and optimizer state that this rank owns."""
        if self.stage == 0:
            yield from self._fragments_whole()
        elif self.stage in (1, 2):
            yield from self._fragments_flat()
        else:
            yield from self._fragments_partitioned()

    def set_progress(self, updates: int) -> None:
        """Set AdamW's step counter (bias correction) after a resume."""
        for state in self._optimizer.state.values():
            state["step"].fill_(updates)

    def gather(self, pieces: dict[str, tuple[int, Tensor]]) -> dict[str, Tensor]:
        """Assemble full fp32 tensors on every rank from per-rank (start, flat piece) by name.

        Names are walked in the same order on every rank, a rank without a piece adds zeros.
        """
        full: dict[str, Tensor] = {}
        for name in self._names:
            shape = self._shapes[name]
            flat = torch.zeros(shape, device=self.layout.device).view(-1)
            if name in pieces and (self.stage or self.layout.rank == 0):
                start, piece = pieces[name]
                flat[start : start + len(piece)] = piece
            if self.layout.world > 1:
                dist.all_reduce(flat)
            full[name] = flat.view(shape)
        return full

    def _clip_whole_gradients(self) -> None:
        bound = self._clip if self._clip > 0 else float("inf")
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), bound, foreach=True)
        self._grad_norm = float(norm)

    def _create_state(self) -> None:
        """Create AdamW's state now, so that fragments exist before the first step."""
        zero = self._engine.optimizer
        if self.stage == 0:
            masters = list(self._parameters.values())
        elif self.stage in (1, 2):
            masters = list(zero.single_partition_of_fp32_groups)
        else:
            masters = list(zero.fp32_partitioned_groups_flat)
        for master in masters:
            self._optimizer.state[master] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }

    def _fragments_whole(self) -> Iterator[Fragment]:
        for name, parameter in self._parameters.items():
            state = self._optimizer.state[parameter]
            tensors = {"param": parameter.data.view(-1)}
            tensors |= {key: state[key].view(-1) for key in ("exp_avg", "exp_avg_sq")}
            yield Fragment(name, 0, tensors)

    def _fragments_flat(self) -> Iterator[Fragment]:
        for name, parameter in self._parameters.items():
            mapping = parameter._hp_mapping
            if mapping is None:
                continue
            flat = self._engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            where = mapping.hp_fragment_address
            yield Fragment(
                name,
                mapping.lp_fragment_address.start,
                self._narrow(flat, where.start, where.numel),
            )

    def _fragments_partitioned(self) -> Iterator[Fragment]:
        zero = self._engine.optimizer
        for name, parameter in self._parameters.items():
            group, offset, size = zero.grad_position[zero.get_param_id(parameter)]
            start = self.layout.rank * size
            owned = min(size, parameter.ds_numel - start)
            if owned > 0:
                flat = zero.fp32_partitioned_groups_flat[group]
                yield Fragment(name, start, self._narrow(flat, offset, owned))

    def _narrow(self, flat: Tensor, start: int, length: int) -> dict[str, Tensor]:
        state = self._optimizer.state[flat]
        whole = {"param": flat.data, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        return {key: tensor.narrow(0, start, length) for key, tensor in whole.items()}


def _build_optimizer(
    model: nn.Module, groups: list[RoleGroup], optim: OptimConfig
) -> torch.optim.AdamW:
    parameters = dict(model.named_parameters())
    return torch.optim.AdamW(
        [
            {
                "params": [parameters[name] for name in group.names],
                "lr_scale": group.lr_scale,
                "weight_decay": optim.weight_decay if group.decay else 0.0,
            }
            for group in groups
        ],
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        fused=True,
    )


def _deepspeed_config(optim: OptimConfig, parallel: ParallelConfig) -> dict[str, object]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Our plan decides which micro-batches make a step, so DeepSpeed must not count them.
        "managed_gradient_accumulation": False,
        "gradient_clipping": optim.clip if parallel.zero_stage else 0.0,
        "steps_per_print": 10**12,
        "bf16": {"enabled": parallel.precision is Precision.bf16},
        # The named optimizers compile for minutes; torch's AdamW is "untested" but exact.
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": parallel.zero_stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": 0,
        },
    }


def _initialize(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, object], layout: Layout
) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", layout.device.type)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    __compatible_ops__["deepspeed_shm_comm"] = False  # compiles for half a minute, gains nothing
    engine, *_ = deepspeed.initialize(
        model=model.to(layout.device), optimizer=optimizer, config=config
    )
    return engine
