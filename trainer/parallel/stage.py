"""One rank's part of a model: the chunks of its pipeline stage, cut over tensor ranks."""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn

from models.attention import Attend
from models.config import ModelConfig
from models.dit.model import DiT, Stream
from models.dit.precondition import value_spread
from models.pack import TokenPack
from trainer.layout.config import ParallelConfig
from trainer.layout.plan import split_of
from trainer.layout.stages import Chunk, chunks_of, cut_chunks
from trainer.parallel.mesh import Mesh
from trainer.parallel.recompute import compile_blocks, recompute_blocks

_FIRST = ("patch_in", "place_in", "condition", "modulation", "caption_in", "null_caption")
_LAST = ("head_modulation", "head")


class Stage(nn.Module):
    """The chunks of one pipeline stage; without pipeline parallelism one chunk, the whole model."""

    def __init__(self, model: DiT, chunks: list[Chunk]) -> None:
        super().__init__()
        self.model, self.chunks = model, chunks

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
        fields = (stream.x, stream.condition, stream.modulation, stream.caption)
        return torch.cat([field.flatten() for field in fields])

    def message_sizes(self, pack: TokenPack) -> list[int]:
        """Return how many values each field of a message holds, in order."""
        width, segments = self.model.config.width, len(pack.lengths)
        captions = sum(max(n, 1) for n in pack.caption_lengths)
        return [len(pack.segment) * width, segments * width, segments * 6 * width, captions * width]

    def _unpack(self, message: Tensor, pack: TokenPack) -> Stream:
        width = self.model.config.width
        x, condition, modulation, caption = message.split(self.message_sizes(pack))
        return Stream(
            x=x.view(-1, width),
            condition=condition.view(-1, width),
            modulation=modulation.view(-1, 6 * width),
            caption=caption.view(-1, width),
        )


def build_stage(config: ModelConfig, parallel: ParallelConfig, mesh: Mesh, attend: Attend) -> Stage:
    """Build this rank's part on the meta device: shapes and plans, no values yet."""
    chunks = cut_chunks(config, parallel.pp * parallel.interleave)
    own = chunks_of(chunks, mesh.place.pp, parallel.pp)
    with torch.device("meta"):
        model = DiT(config, attend)
    _prune(model, own)
    if parallel.tp > 1:
        from trainer.parallel.tensor import split_layers

        split_layers(model, mesh.groups["tp"])
    if parallel.cp > 1:
        from trainer.parallel.context import spread_attention

        spread_attention(model, mesh.groups["cp"])
    return Stage(model, own)


def materialise(
    stage: Stage,
    values: Callable[[Collection[str]], Iterator[tuple[str, Tensor]]],
    parallel: ParallelConfig,
    mesh: Mesh,
) -> None:
    """Give a stage real parameters on this rank's device, filled from full values by name."""
    model = stage.model
    model.to_empty(device=mesh.device)
    restore_buffers(model, mesh.device)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values(parameters.keys()):
            if name in parameters:
                parameters[name].copy_(own_part(name, value, mesh))
    if parallel.tp > 1:
        from trainer.parallel.tensor import mark_cut, sum_whole_gradients

        mark_cut(model)
        sum_whole_gradients(model, mesh.groups["tp"])
    blocks = [model.blocks[number] for chunk in stage.chunks for number in chunk.blocks]
    recompute_blocks(blocks, parallel.recompute)
    if parallel.compile:
        compile_blocks(blocks)


def restore_buffers(model: DiT, device: torch.device) -> None:
    """Set the buffers, which stay fp32 whatever the parameters are."""
    model.sigma = value_spread(model.config.spread).to(device)


def own_part(name: str, full: Tensor, mesh: Mesh) -> Tensor:
    """Return this tensor rank's part of a full parameter."""
    split = split_of(name)
    if split is None or mesh.layout.tp == 1:
        return full
    return split.cut(full, mesh.place.tp, mesh.layout.tp)


def _prune(model: DiT, chunks: list[Chunk]) -> None:
    """Drop what other stages hold; the names of what stays do not change."""
    held = {number for chunk in chunks for number in chunk.blocks}
    for number in range(model.config.depth):
        if number not in held:
            model.blocks[number] = nn.Identity()
    absent: list[str] = []
    absent += () if chunks[0].is_first else _FIRST
    absent += () if chunks[-1].is_last else _LAST
    for name in absent:
        if isinstance(getattr(model, name), nn.Parameter):
            model.register_parameter(name, None)
        else:
            setattr(model, name, nn.Identity())
