"""One optimizer step's micro-batches: packs with the noise, times and dropout their keys decide."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from data.loading.batch import Pack, Sample
from models.count import count_flops
from models.objective import Draw, Objective, build_objective
from models.pack import TokenPack
from models.spans import spans_of
from models.tasks import Given, draw_given, draw_task
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.parallel.engine import Engine
from trainer.parallel.mesh import Mesh
from trainer.parallel.rows import own_rows, padded_rows, row_slice
from trainer.rng import generator, normal, uniform

_LEAST_SHARE = 2.0**-60  # a uniform draw may be 0, whose normal is infinite


@dataclass(frozen=True)
class MicroBatch:
    """A pack ready for the model, with the rows that this rank holds.

    pack, x_0: own rows of tokens and noise (S, V). t: one time a span (T,).
    keys: the samples in the order of their segments; none of a pack that has lost all of its own.
    tokens, values, flops: counts of the whole pack. caption_rows: of its captions, without padding.
    """

    pack: TokenPack
    x_0: Tensor
    t: Tensor
    keys: list[str]
    tokens: int
    values: int
    flops: int
    caption_rows: int = 0

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the batch with its tensors on ``device``."""
        return replace(
            self, pack=self.pack.to(device), x_0=self.x_0.to(device), t=self.t.to(device)
        )


def prepare(pack: Pack, run: RunConfig, collator: Collator, mesh: Mesh) -> MicroBatch:
    """Encode a pack, draw its noise, and keep this rank's rows.

    Peers that share a pack draw the same noise, since keys decide it. Equal lengths are neighbours
    so that attention batches. A pack without samples is one token without loss, so that its rank
    keeps step with the others.
    """
    if not pack.samples:
        return _empty(run, collator, mesh)
    pairs = [(s, with_task(run, collator.encode(s), s)) for s in pack.samples]
    pairs.sort(key=lambda pair: len(pair[1].tokens))
    items, visits = [item for _, item in pairs], [(s.info.key, s.visit) for s, _ in pairs]
    captions = [caption_use(run, *visit) for visit in visits]
    lengths = [len(item.tokens) for item in items]
    tokens = collator.pack(items, captions, _rows(run, sum(lengths), mesh), run.data.caption_rows)
    draws = [_draw_of(run.seed, *visit) for visit in visits]
    if run.objective.stratified:
        draws = stratified(draws, run.seed, visits)
    objective = build_objective(run.objective)
    noise = [
        objective.noise(draw, tuple(item.tokens.shape))
        for draw, item in zip(draws, items, strict=True)
    ]
    contexts = [max(length, 1) for length in tokens.caption_lengths]
    batch = MicroBatch(
        pack=own_rows(tokens, mesh.layout, mesh.rank),
        x_0=own_noise(noise, len(tokens.latent), mesh),
        t=_times(objective, draws, items, tokens),
        keys=[key for key, _ in visits],
        tokens=tokens.num_tokens,
        values=int(tokens.valid.sum()),
        flops=count_flops(run.model, tokens.lengths, contexts, spans=tokens.num_spans).total,
        caption_rows=sum(contexts),
    )
    return batch.to(mesh.device)


def _empty(run: RunConfig, collator: Collator, mesh: Mesh) -> MicroBatch:
    item = collator.filler()
    rows = _rows(run, len(item.tokens), mesh)
    tokens = collator.pack([item], [CaptionUse.dropped], rows, run.data.caption_rows)
    tokens = replace(tokens, valid=torch.zeros_like(tokens.valid))
    noise = own_noise([torch.zeros_like(item.tokens)], len(tokens.latent), mesh)
    own = own_rows(tokens, mesh.layout, mesh.rank)
    batch = MicroBatch(own, noise, torch.full((1,), 0.5), keys=[], tokens=0, values=0, flops=0)
    return batch.to(mesh.device)


def _rows(run: RunConfig, tokens: int, mesh: Mesh) -> int:
    """Return the rows of a micro-batch: a whole pack where static shapes are faster."""
    return padded_rows(run.data.pack_tokens if mesh.device.type == "cuda" else tokens, mesh.layout)


def caption_use(run: RunConfig, key: str, visit: int) -> CaptionUse:
    """Draw whether a visit drops its caption, and if not, which of the two it takes."""
    objective = run.objective
    if _happens(objective.caption_dropout, run.seed, "caption", key, visit):
        return CaptionUse.dropped
    dense = _happens(objective.dense_captions, run.seed, "caption-kind", key, visit)
    return CaptionUse.dense if dense else CaptionUse.short


def with_task(run: RunConfig, item: PackItem, sample: Sample) -> PackItem:
    """Return an item with what this visit's task gives of it; as it is where nothing else is."""
    if not run.objective.tasks:
        return item
    rng = generator(run.seed, "task", sample.info.key, sample.visit)
    task = draw_task(run.objective.tasks, rng.random())
    given = draw_given(task, item.size, lambda n: int(rng.integers(n)))
    return item if given == Given() else replace(item, spans=spans_of(given, item.size))


def _happens(share: float, *name: Any) -> bool:
    """Draw whether something happens in a share of visits; what is certain needs no draw."""
    return share > 0 and (share >= 1 or uniform(*name) < share)


def own_noise(noise: list[Tensor], rows: int, mesh: Mesh) -> Tensor:
    """Lay the noise of a pack side by side, pad it to ``rows`` and keep this rank's rows."""
    joined = torch.cat(noise)
    padding = joined.new_zeros(rows - len(joined), joined.shape[1])
    return torch.cat([joined, padding])[row_slice(rows, mesh.layout, mesh.rank)]


def _times(
    objective: Objective, draws: list[Draw], items: list[PackItem], pack: TokenPack
) -> Tensor:
    """Draw a time for each span of a pack; given ones stand at 1.

    A sample's first span has the time that the whole sample would have.
    """
    each: list[Draw] = []
    lengths: list[float] = []
    for draw, item in zip(draws, items, strict=True):
        count = len(item.spans.given) if item.spans is not None else 1
        each += [draw, *(_of_span(draw, span) for span in range(1, count))]
        lengths += [float(len(item.tokens))] * count
    return pack.times(objective.times(each, torch.tensor(lengths)))


def _of_span(draw: Draw, span: int) -> Draw:
    def drawn(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return draw(f"{purpose}-of-span-{span}", shape)

    return drawn


def _draw_of(seed: int, key: str, visit: int) -> Draw:
    def draw(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return normal(shape, seed, purpose, key, visit)

    return draw


def stratified(draws: list[Draw], seed: int, visits: list[tuple[str, int]]) -> list[Draw]:
    """Return a pack's draws whose times fall into as many equal shares as there are samples.

    Each time alone is drawn as before; together they leave no share of the density out. What is
    drawn depends on (seed, samples of the pack) alone: a pack has one plan on every layout, and its
    samples with their visits name it as its step and number would, also after a rewind.
    """
    order = sorted(visits)
    name = " ".join(f"{key}/{visit}" for key, visit in order)
    rng = generator(seed, "time-shares", name, 0)
    shares = (rng.permutation(len(order)) + rng.random(len(order))) / len(order)
    normals = torch.special.ndtri(torch.from_numpy(shares).clamp(min=_LEAST_SHARE)).float()
    place = {visit: normals[i] for i, visit in enumerate(order)}
    return [_with_time(draw, place[visit]) for draw, visit in zip(draws, visits, strict=True)]


def _with_time(draw: Draw, normal: Tensor) -> Draw:
    def drawn(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return normal.expand(shape) if purpose == "time" else draw(purpose, shape)

    return drawn


def accumulate(
    engine: Engine, batches: list[MicroBatch], denominator: float, objective: Objective
) -> list[Tensor]:
    """Run forward and backward over a replica's micro-batches.

    Returns the summed error of each own row (S,) of each batch, as training weighs it, on the ranks
    of the last pipeline stage; an empty list on others.
    """
    errors = _Errors(engine, batches, objective.inputs, objective.errors)

    def backward(output: Tensor, is_loss: bool) -> None:
        if is_loss:
            engine.backward_loss(output, denominator)
        else:
            engine.backward_message(output)

    size = errors.message_size
    engine.pipeline.run(len(batches), errors.forward, backward, size, engine.dtype)
    return errors.found


@torch.no_grad()
def measure(engine: Engine, objective: Objective, batches: list[MicroBatch]) -> list[Tensor]:
    """Run forward only; returns what :func:`accumulate` returns, as validation measures it."""
    errors = _Errors(engine, batches, objective.inputs, objective.measured)
    engine.pipeline.run(len(batches), errors.forward, None, errors.message_size, engine.dtype)
    return errors.found


class _Errors:
    """The forward pass of micro-batches through this rank's chunks."""

    def __init__(
        self,
        engine: Engine,
        batches: list[MicroBatch],
        inputs: Callable[..., Tensor],
        errors: Callable[..., Tensor],
    ) -> None:
        self._engine, self._batches = engine, batches
        self._inputs, self._errors = inputs, errors
        self.found: list[Tensor] = []

    def forward(self, chunk: int, micro: int, incoming: Tensor | None) -> Tensor:
        batch = self._batches[micro]

        def network(pack: TokenPack, x_t: Tensor, t: Tensor) -> Tensor:
            return self._engine(chunk, pack, x_t, t, incoming)

        if not self._engine.is_last(chunk):
            return network(batch.pack, self._inputs(batch.pack, batch.x_0, batch.t), batch.t)
        errors = self._errors(network, batch.pack, batch.x_0, batch.t)
        self.found.append(errors.detach())  # micro-batches leave the last chunk in order
        return errors.sum(dtype=torch.float64).to(torch.float32)

    def message_size(self, micro: int) -> int:
        return sum(self._engine.stage.message_sizes(self._batches[micro].pack))
