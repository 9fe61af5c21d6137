"""One rank's part of a model: the chunks of its pipeline stage, cut over tensor ranks."""

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.architecture import Reads, Specification, Split, specification_of
from models.attention import Attend
from models.config import ModelConfig, NormKernel
from models.kernels import build_te_norm, capability_of
from models.network import build_network
from models.pack import TokenPack
from models.precondition import Coefficients
from trainer.layout.config import ParallelConfig, Products
from trainer.layout.stages import Chunk, chunks_of, cut_chunks
from trainer.parallel.mesh import Mesh, split_context
from trainer.parallel.recompute import wrap_blocks


class Sliceable(Protocol):
    """A parameter's value that need not be there whole."""

    def piece(self, cut: Split | None, index: int, count: int, start: int, length: int) -> Tensor:
        """Return elements [start, start + length) of part ``index`` of ``count``, flat."""


# wanted names -> name and value of at least these, in the order of ``named_parameters``
Values = Callable[[Collection[str]], Iterator[tuple[str, Tensor | Sliceable]]]


class Stage(nn.Module):
    """The chunks of one pipeline stage; without pipeline parallelism one chunk, the whole model.

    model: a ``models.network.Network`` that holds this rank's part.
    """

    def __init__(self, model: nn.Module, facts: Specification, chunks: list[Chunk]) -> None:
        super().__init__()
        self.model: Any = model
        self.facts, self.chunks = facts, chunks

    def forward(
        self, chunk: int, pack: TokenPack, x_t: Tensor, t: Tensor, incoming: Tensor | None
    ) -> Tensor:
        """Return the velocity (S, V) on the last chunk, else the message to the next one."""
        part, model = self.chunks[chunk], self.model
        c_in, c_skip, c_out = model.precondition(pack, t)
        if incoming is None:
            stream = model.embed(pack, c_in * x_t, t)
        else:
            stream = self._unpack(incoming, pack)
        stream = model.run_blocks(pack, stream, part.blocks)
        if part.is_last:
            return torch.addcmul(c_skip * x_t, c_out, model.read_out(pack, stream))
        fields = (getattr(stream, field.name) for field in self.facts.stream)
        return torch.cat([field.flatten() for field in fields])

    def message_sizes(self, pack: TokenPack) -> list[int]:
        """Return how many values each field of a message holds, in order."""
        times = {
            Reads.rows: len(pack.segment),
            Reads.spans: pack.num_spans,
            Reads.captions: pack.caption_rows,
        }
        return [times[field.reads] * field.width for field in self.facts.stream]

    def _unpack(self, message: Tensor, pack: TokenPack) -> Any:
        fields = zip(self.facts.stream, message.split(self.message_sizes(pack)), strict=True)
        return self.model.stream(**{f.name: part.view(-1, f.width) for f, part in fields})


def build_stage(
    config: ModelConfig,
    parallel: ParallelConfig,
    mesh: Mesh,
    attend: Attend,
    precondition: Coefficients,
) -> Stage:
    """Build this rank's part on the meta device: shapes and cuts, no values yet."""
    facts, chunks = specification_of(config), cut_chunks(config, parallel.pp * parallel.interleave)
    own = chunks_of(chunks, mesh.place.pp, parallel.pp)
    with torch.device("meta"):
        model = build_network(config, attend, precondition)
    _prune(model, facts, own)
    if parallel.norm is NormKernel.te:
        _swap_norms(model, config, mesh)
    if parallel.products is Products.float8:
        from trainer.parallel.float8 import narrow_products

        narrow_products(model, facts, mesh.device)
    if parallel.tp > 1:
        from trainer.parallel.tensor import split_layers

        split_layers(model, facts, mesh.groups["tp"])
    if parallel.cp > 1:
        from trainer.parallel.context import spread_attention

        head_ranks, _ = parallel.context_split(config.num_heads)
        heads, keys = split_context(mesh, head_ranks)
        spread_attention(model, facts, mesh.place.cp, heads, keys)
    return Stage(model, facts, own)


def materialise(
    stage: Stage,
    values: Values,
    parallel: ParallelConfig,
    mesh: Mesh,
) -> None:
    """Give a stage real parameters on this rank's device, filled from values by name.

    Under ZeRO 3 they are there already, and filled when the engine has its masters.
    """
    model = stage.model
    if parallel.zero_stage < 3:
        model.to_empty(device=mesh.device)
    model.restore_buffers(mesh.device)
    parameters = dict(model.named_parameters()) if parallel.zero_stage < 3 else {}
    with torch.no_grad():
        for name, value in values(parameters.keys()) if parameters else ():
            if name in parameters:
                own, cut = parameters[name], stage.facts.cuts.get(name)
                own.copy_(own_piece(cut, value, mesh, 0, own.numel()).view_as(own))
    if parallel.tp > 1:
        from trainer.parallel.tensor import mark_cut, sum_whole_gradients

        mark_cut(model, stage.facts)
        sum_whole_gradients(model, stage.facts, mesh.groups["tp"])
    blocks = [model.blocks[number] for chunk in stage.chunks for number in chunk.blocks]
    wrap_blocks(blocks, parallel.recompute, parallel.compile, whole=parallel.zero_stage < 3)


def own_piece(
    cut: Split | None, value: "Tensor | Sliceable", mesh: Mesh, start: int, length: int
) -> Tensor:
    """Return elements [start, start + length) of this tensor rank's part of a parameter, flat.

    value: the whole parameter, or what any piece can be had of; cut: how it is cut, if at all.
    """
    index, count = mesh.place.tp, mesh.layout.tp
    if cut is None or count == 1:
        cut, index, count = None, 0, 1
    if not isinstance(value, Tensor):
        return value.piece(cut, index, count, start, length)
    part = value if cut is None else cut.cut(value, index, count)
    return part.reshape(-1)[start : start + length]


def _swap_norms(model: nn.Module, config: ModelConfig, mesh: Mesh) -> None:
    """Let Transformer Engine norm rows wherever the network lets another kernel do so."""
    places: list[Any] = [module for module in model.modules() if hasattr(module, "norm_rows")]
    if not places:
        raise ValueError(
            f"parallel.norm=te: model.architecture={config.architecture} norms no rows through a "
            "kernel. Use parallel.norm=torch."
        )
    norm = build_te_norm(capability_of(mesh.device))
    for module in places:
        module.norm_rows = norm


def _prune(model: Any, facts: Specification, chunks: list[Chunk]) -> None:
    """Drop what other stages hold; the names of what stays do not change."""
    held = {number for chunk in chunks for number in chunk.blocks}
    for number in range(facts.depth):
        if number not in held:
            model.blocks[number] = nn.Identity()
    absent = () if chunks[0].is_first else facts.before
    absent += () if chunks[-1].is_last else facts.after
    for name in sorted({weight.name.partition(".")[0] for weight in absent}):
        if isinstance(getattr(model, name), nn.Parameter):
            model.register_parameter(name, None)
        else:
            setattr(model, name, nn.Identity())
