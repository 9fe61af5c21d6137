"""The DeepSpeed engine (zero.py) around a rank's part of a model.

What the rest of the trainer sees: forward, backward, step, and the *fragments* of optimizer state
this rank owns, by parameter name, whatever the layout and the ZeRO stage. DeepSpeed's own
checkpoints are never used: they unpickle.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.architecture import specification_of
from models.attention import Attend, attend_segments
from models.config import ModelConfig
from models.kernels import Chosen, capability_of, choose_attention
from models.pack import TokenPack
from models.precondition import Coefficients, velocity_coefficients
from models.roles import role_groups
from trainer.layout.config import ParallelConfig, Precision
from trainer.layout.optimizer import MOMENTS, OptimizerKind, moments_of, orthogonal_names
from trainer.layout.plan import Fragment
from trainer.optim_config import OptimConfig
from trainer.parallel.mesh import Mesh
from trainer.parallel.muon import HeldMuon, Matrix, Partitioned, Whole
from trainer.parallel.optimizer import HeldAdamW
from trainer.parallel.pipeline import Pipeline
from trainer.parallel.stage import Values, build_stage, materialise, own_piece
from trainer.parallel.zero import initialize, partition_empty, zero_settings


class Engine:
    """A model under a layout and ZeRO 0, 1, 2 or 3, with AdamW, or with Muon where it may be.

    values: of the parameters, whole (``models.network.initial_values``) or to be had in pieces
    (``models.initial.drawn_values``, a checkpoint's).
    """

    def __init__(
        self,
        model: ModelConfig,
        values: Values,
        optim: OptimConfig,
        parallel: ParallelConfig,
        mesh: Mesh,
        attend: Attend = attend_segments,
        precondition: Coefficients = velocity_coefficients,
    ) -> None:
        self.mesh, self.zero_stage, self._clip = mesh, parallel.zero_stage, optim.clip
        self.dtype = dtype_of(parallel)
        self._grad_norm, self._cuts = 0.0, specification_of(model).cuts
        self.stage = build_stage(model, parallel, mesh, attend, precondition)
        config = zero_settings(optim, parallel, sum(p.numel() for p in self.stage.parameters()))
        if parallel.zero_stage == 3:
            partition_empty(self.stage.model, self.dtype, config, mesh)
        materialise(self.stage, values, parallel, mesh)
        self.pipeline = Pipeline(mesh, len(self.stage.chunks))
        self._names = [name for name, _ in self.stage.model.named_parameters()]
        self._optimizer = build_optimizer(self.stage.model, model, optim)
        if isinstance(self._optimizer, HeldMuon):
            self._optimizer.direct = self._directions(orthogonal_names(model, optim.kind))
        self._engine = initialize(self.stage, self._optimizer, config, mesh)
        if parallel.zero_stage == 0 and mesh.layout.replicas == 1:
            # Nobody to reduce with: DeepSpeed would still copy every gradient there and back.
            self._engine.enable_backward_allreduce = False
        self.stage.model.restore_buffers(mesh.device)
        parameters = self.stage.model.parameters()
        # DeepSpeed hangs its own attributes on parameters
        self._parameters: dict[str, Any] = dict(zip(self._names, parameters, strict=True))
        self._create_state()
        if self.dtype is not torch.float32 or parallel.zero_stage == 3:
            # DeepSpeed made the fp32 masters from weights it had rounded before, or from none.
            self.write("param", values)
            self.publish()

    def __call__(
        self, chunk: int, pack: TokenPack, x_t: Tensor, t: Tensor, incoming: Tensor | None = None
    ) -> Tensor:
        """Run a chunk forward."""
        return self._engine(chunk, pack, x_t, t, incoming)

    def is_last(self, chunk: int) -> bool:
        """Tell whether a chunk of this rank reads out the velocity."""
        return self.stage.chunks[chunk].is_last

    def backward_loss(self, error_sum: Tensor, denominator: float) -> None:
        """Accumulate the gradient of this micro-batch's share of the global loss.

        error_sum: this rank's summed error; denominator: the whole step's, over all ranks.
        DeepSpeed averages over data and context ranks, hence the factor of their number.
        """
        loss = error_sum * (self.mesh.layout.replicas / denominator)
        self._engine.backward(loss, scale_wrt_gas=False)

    def backward_message(self, scalar: Tensor) -> None:
        """Accumulate gradients of a chunk whose output went to another stage."""
        self._engine.backward(scalar, scale_wrt_gas=False)

    def step(self, lr: float, decide: Callable[[float], bool]) -> float:
        """Reduce, clip, and update if ``decide(norm)`` says so; return the global gradient norm.

        ``decide`` is called once, with the norm before clipping, on every rank. Where it declines,
        weights and optimizer state keep every bit, and the gradients are dropped.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        asked: list[bool] = []

        def allow() -> bool:
            if not asked:
                self._grad_norm = self._norm()
                asked.append(decide(self._grad_norm))
            return asked[0]

        self._optimizer.allow = allow
        self._engine.step()
        if not asked:  # ZeRO found the norm to be no number and has dropped the step by itself
            self._grad_norm = float("nan")
            decide(self._grad_norm)
        return self._grad_norm

    def _norm(self) -> float:
        if self.zero_stage:
            return float(self._engine.optimizer._global_grad_norm)
        return self._clip_whole_gradients()

    def fragments(self) -> Iterator[Fragment]:
        """Yield the fragments of master weights and optimizer state that this rank updates."""
        if self.zero_stage == 0:
            yield from self._fragments_whole()
        elif self.zero_stage in (1, 2):
            yield from self._fragments_flat()
        else:
            yield from self._fragments_partitioned()

    def writes(self, fragment: Fragment) -> bool:
        """Tell whether this rank saves a fragment, of all ranks that hold the same one."""
        place = self.mesh.place
        if self.zero_stage == 0 and (place.dp, place.cp) != (0, 0):
            return False
        return fragment.parts > 1 or place.tp == 0

    def write(self, kind: str, values: Values) -> None:
        """Fill one kind of state (``param``, ``exp_avg``, ``exp_avg_sq``) from full values.

        Only of parameters that have it: Muon keeps no ``exp_avg_sq``.
        """
        own = {f.name: f.tensors[kind] for f in self.fragments() if kind in f.tensors}
        self.fill(own, values)

    def fill(self, own: dict[str, Tensor], values: Values) -> None:
        """Copy this rank's pieces of values into flat tensors by parameter name."""
        starts = {fragment.name: fragment.start for fragment in self.fragments()}
        with torch.no_grad():
            for name, value in values(own.keys()):
                if name in own:
                    piece, cut = own[name], self._cuts.get(name)
                    piece.copy_(own_piece(cut, value, self.mesh, starts[name], len(piece)))

    def set_progress(self, updates: int) -> None:
        """Set AdamW's step counter (bias correction) after a resume."""
        for state in self._optimizer.state.values():
            if "step" in state:
                state["step"].fill_(updates)

    def publish(self) -> None:
        """Make the network compute with the master weights, after they were written."""
        zero = self._engine.optimizer
        if self.zero_stage in (1, 2):
            zero.update_lp_params()
        elif self.zero_stage == 3:
            # ZeRO 3 keeps or prefetches whole parameters between passes: those hold old values.
            zero.empty_partition_cache()
            for group in range(len(zero.fp16_groups)):
                zero._reassign_or_swap_out_partitioned_parameters(group)

    @contextmanager
    def weights(self, pieces: dict[str, Tensor]) -> Iterator[None]:
        """Compute with other weights for a while, given as flat pieces like this rank's masters."""
        masters = {fragment.name: fragment.tensors["param"] for fragment in self.fragments()}
        kept = {name: master.clone() for name, master in masters.items()}
        try:
            self._set(masters, pieces)
            yield
        finally:
            self._set(masters, kept)

    def _set(self, masters: dict[str, Tensor], pieces: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, master in masters.items():
                master.copy_(pieces[name])
        self.publish()

    def check_equal(self) -> None:
        """Raise RuntimeError naming the parameter if tensor ranks disagree on a whole one."""
        if self.mesh.layout.tp == 1:
            return
        whole = [f for f in self.fragments() if f.parts == 1]
        own = torch.stack([_fingerprint(f.tensors["param"]) for f in whole])
        group = self.mesh.groups["tp"]
        found = [torch.empty_like(own) for _ in range(group.size())]
        dist.all_gather(found, own, group=group)
        for index, fragment in enumerate(whole):
            if any(not torch.equal(other[index], found[0][index]) for other in found):
                raise RuntimeError(
                    f"parameter {fragment.name}: differs between the tensor ranks "
                    f"{self.mesh.layout.members(self.mesh.rank, 'tp')}, which must hold equal bits."
                )

    def _clip_whole_gradients(self) -> float:
        """Clip gradients that ZeRO 0 leaves whole on each rank; return their global norm."""
        parameters = list(self._parameters.values())
        place, split = self.mesh.place, self._is_split
        gradients = [p.grad for n, p in self._parameters.items() if split(n) or place.tp == 0]
        norm = nn.utils.get_total_norm([g for g in gradients if g is not None], foreach=True)
        if self.mesh.groups and self.mesh.groups["model"].size() > 1:
            square = norm.square()
            dist.all_reduce(square, group=self.mesh.groups["model"])
            norm = square.sqrt()
        bound = self._clip if self._clip > 0 else float("inf")
        nn.utils.clip_grads_with_norm_(parameters, bound, norm, foreach=True)
        return float(norm)

    def _is_split(self, name: str) -> bool:
        return self.mesh.layout.tp > 1 and name in self._cuts

    def _directions(self, names: Collection[str]) -> Whole | Partitioned:
        """Return what makes this rank's orthogonal updates, of parameters in its group's order."""
        shapes = {n: tuple(p.shape) for n, p in self.stage.model.named_parameters()}
        matrices = [
            Matrix(shape, self._cuts.get(name)) for name, shape in shapes.items() if name in names
        ]
        kind = Partitioned if self.zero_stage else Whole
        return kind(matrices, self.mesh, self.dtype)

    def _create_state(self) -> None:
        """Create the optimizer's state now, so that fragments exist before the first step."""
        groups = self._optimizer.param_groups
        held = [(group["orthogonal"], group["params"]) for group in groups]
        if self.zero_stage == 3:  # AdamW alone; the groups are cut into further ones
            held = [(False, self._engine.optimizer.fp32_partitioned_groups_flat)]
        for orthogonal, masters in held:
            for master in masters:
                state = {kind: torch.zeros_like(master) for kind in moments_of(orthogonal)}
                self._optimizer.state[master] = state
                if not orthogonal:
                    state["step"] = torch.tensor(0.0)

    def _fragments_whole(self) -> Iterator[Fragment]:
        for name, parameter in self._parameters.items():
            state = self._optimizer.state[parameter]
            tensors = {"param": parameter.data.view(-1)}
            tensors |= {key: state[key].view(-1) for key in MOMENTS if key in state}
            yield self._fragment(name, 0, tensors)

    def _fragments_flat(self) -> Iterator[Fragment]:
        for name, parameter in self._parameters.items():
            mapping = parameter._hp_mapping
            if mapping is None:
                continue
            flat = self._engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            where = mapping.hp_fragment_address
            tensors = self._narrow(flat, where.start, where.numel)
            yield self._fragment(name, mapping.lp_fragment_address.start, tensors)

    def _fragments_partitioned(self) -> Iterator[Fragment]:
        zero = self._engine.optimizer
        rank = dist.get_rank(zero.dp_process_group)
        for name, parameter in self._parameters.items():
            group, offset, size = zero.grad_position[zero.get_param_id(parameter)]
            start = rank * size
            owned = min(size, parameter.ds_numel - start)
            if owned > 0:
                flat = zero.fp32_partitioned_groups_flat[group]
                yield self._fragment(name, start, self._narrow(flat, offset, owned))

    def _fragment(self, name: str, start: int, tensors: dict[str, Tensor]) -> Fragment:
        if not self._is_split(name):
            return Fragment(name, start, tensors)
        return Fragment(name, start, tensors, self.mesh.place.tp, self.mesh.layout.tp)

    def _narrow(self, flat: Tensor, start: int, length: int) -> dict[str, Tensor]:
        state = self._optimizer.state[flat]
        whole = {"param": flat.data} | {key: state[key] for key in MOMENTS if key in state}
        return {key: tensor.narrow(0, start, length) for key, tensor in whole.items()}


def dtype_of(parallel: ParallelConfig) -> torch.dtype:
    """Return the arithmetic of the network."""
    return torch.bfloat16 if parallel.precision is Precision.bf16 else torch.float32


def attention_of(model: ModelConfig, parallel: ParallelConfig, mesh: Mesh) -> Chosen:
    """Return what computes attention on this rank; ValueError where what was asked for cannot."""
    found = capability_of(mesh.device)
    return choose_attention(parallel.attention, found, dtype_of(parallel), model.head_dim)


def _fingerprint(tensor: Tensor) -> Tensor:
    """Return two sums over the bits of an fp32 tensor, plain and weighted by position."""
    bits = tensor.contiguous().view(torch.int32).to(torch.int64)
    places = torch.arange(1, len(bits) + 1, device=bits.device)
    return torch.stack([bits.sum(), (bits * places).sum()])


def build_optimizer(model: nn.Module, config: ModelConfig, optim: OptimConfig) -> HeldAdamW:
    """Build the optimizer with two groups, decayed and not, or Muon's as a third, on every stage.

    DeepSpeed adds up gradient norms group by group over all stages, so all need as many groups;
    every stage holds matrices and vectors, while embeddings and head lie on one stage each.
    Muon's rate falls with the root of the width: its update then has the same spectral norm at
    every width (Yang, Simon and Bernstein 2023), and AdamW's size at the base width.
    """
    parameters = dict(model.named_parameters())
    apart = orthogonal_names(config, optim.kind)
    merged: dict[tuple[bool, bool, float], list[str]] = {}
    for group in role_groups(model, config):
        for name in group.names:
            merged.setdefault((name in apart, group.decay, group.lr_scale), []).append(name)
    root = sqrt(config.base_width / config.width)
    groups = [
        {
            "params": [parameters[name] for name in names],
            "lr_scale": root if orthogonal else scale,
            # Of the weights a step takes as much as AdamW would, whatever the rate.
            "weight_decay": _decay(optim, scale) * (scale / root if orthogonal else decay),
            "orthogonal": orthogonal,
        }
        for (orthogonal, decay, scale), names in sorted(merged.items(), key=lambda i: i[0][:2])
    ]
    betas = (optim.beta1, optim.beta2)
    adamw: dict[str, Any] = {"lr": optim.lr, "betas": betas, "eps": optim.eps, "fused": True}
    if optim.kind is OptimizerKind.muon:
        return HeldMuon(groups, optim.momentum, **adamw)
    return HeldAdamW(groups, **adamw)


def _decay(optim: OptimConfig, scale: float) -> float:
    """Return the weight decay of a group; AdamW multiplies it by the group's rate."""
    return optim.weight_decay if optim.decay_by_width else optim.weight_decay / scale
