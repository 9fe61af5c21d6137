"""The quiet y-axis: validation on fixed clips with fixed noise and stratified times."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.dataset.sample import world_of
from data.loading.loader import fixed_order, load_fixed
from data.loading.mixture import read_split
from models.objective import Draw, Objective, build_objective
from models.pack import TokenPack
from models.spans import spans_of
from models.tasks import Task, beside_text, can, draw_given
from trainer.config import RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.diffusion.micro_batch import MicroBatch, own_noise
from trainer.diffusion.strata import Strata, strata_of, trained_shares
from trainer.diffusion.times_drawn import number_of_strata
from trainer.parallel.mesh import Mesh
from trainer.parallel.rows import own_rows, padded_rows
from trainer.rng import generator, normal

_GOLDEN = (5**0.5 - 1) / 2
# Clips between two looks at the stop flag, for each pipeline stage: a look costs a collective, a
# pipeline runs empty between chunks.
_CLIPS_A_LOOK = 4
NOISE_DRAWS = 2  # independent draws of the noise; their difference measures the noise of the loss


class Stopped(Exception):
    """A signal stopped a validation, on all ranks at the same clip."""


@dataclass(frozen=True)
class _Item:
    """One clip at neighbouring strata of time, with one draw of the noise.

    first: the number of the first stratum. values: of the clip, once.
    counts: False where a data rank repeats a clip to keep step with the others.
    """

    batch: MicroBatch
    clip: int
    draw: int
    first: int
    values: float
    counts: bool


@dataclass(frozen=True)
class Group:
    """The clips of one world and one shape: sums, so that any union of groups has an exact loss.

    num_frames, height, width: of the source, in frames and pixels.
    errors: summed squared errors, averaged over noise draws and times; values: how many values they
    are of, so that sum(errors) / sum(values) is the loss of any groups together.
    variance: of ``errors`` over noise draws, which adds up likewise; nan with one draw.
    """

    world: str
    num_frames: int
    height: int
    width: int
    clips: int
    tokens: int
    values: float
    errors: float
    variance: float


@dataclass(frozen=True)
class Validation:
    """A split's validation.

    loss: mean squared velocity error over valid values and times spread evenly over
    ``objective.t_range``, which is all of [0, 1] unless a run says otherwise.
    noise: standard error of ``loss`` over noise draws, the clips being fixed.
    by_time: loss per stratum of t, from noise (t near 0) to data (t near 1).
    clips, tokens: how much was looked at.
    groups: the same errors by world and shape of the clips. strata: the same by time and by clip.
    """

    loss: float
    noise: float
    by_time: list[float]
    clips: int
    tokens: int
    groups: list[Group]
    strata: Strata


class Validator:
    """Hold the fixed clips of one split, this rank's share, and measure a model on them."""

    def __init__(
        self,
        run: RunConfig,
        split: str,
        collator: Collator,
        mesh: Mesh,
        samples: int,
        task: Task = Task.text_to_video,
        even: bool = True,
    ) -> None:
        self._task, self._even = task, even
        self._run, self._mesh, self._times = run, mesh, run.validation.times
        self._objective = build_objective(run.objective)
        stored = load_fixed(run.data, split, samples, run.cell, mesh.peers)
        if not stored:
            raise ValueError(
                f"validation.splits={split}: holds no clips. Remove it or ingest some."
            )
        found = [(sample.info, collator.encode(sample)) for sample in stored]
        found = [
            (info, self._given(clip, info.key)) for info, clip in found if can(task, clip.size)
        ]
        self.infos, clips = [info for info, _ in found], [clip for _, clip in found]
        self._tokens = [len(clip.tokens) for clip in clips]
        self.num_clips, self.num_tokens = len(clips), sum(self._tokens)
        self._items = [
            self._item(collator, clips[i], i, draw, strata, counts)
            for i, parts, counts in self._shares()
            for draw in range(NOISE_DRAWS)
            for strata in torch.arange(self._times).tensor_split(parts)
        ]

    def _given(self, clip: PackItem, key: str) -> PackItem:
        """Return a clip with what the task gives of it, the same for all runs of a study."""
        if self._task is Task.text_to_video:
            return clip
        rng = generator(self._run.validation.noise_seed, f"val-{self._task}", key, 0)
        given = draw_given(self._task, clip.size, lambda n: int(rng.integers(n)))
        return replace(clip, spans=spans_of(given, clip.size))

    def _shares(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (clip, micro-batches of a draw, whether it counts) of this data rank.

        A clip at all strata is cut into micro-batches that no pack of the training exceeds. Where
        it must be ``even`` all ranks get equally many: ZeRO 3 gathers weights in every forward
        pass. Else a clip's cut depends on nothing beside it.
        """
        clips, world, rank = self.num_clips, self._mesh.layout.dp, self._mesh.place.dp
        most = [max(1, self._run.data.pack_tokens // n) for n in self._tokens]  # strata at once
        for first in range(0, clips, world):
            turn = [i if i < clips else 0 for i in range(first, first + world)]
            met = turn if self._even else turn[rank : rank + 1]
            parts = max(-(-self._times // most[i]) for i in met)
            yield turn[rank], min(parts, self._times), first + rank < clips

    def _item(
        self,
        collator: Collator,
        clip: PackItem,
        index: int,
        draw: int,
        strata: Int[Tensor, " T"],
        counts: bool,
    ) -> _Item:
        """Lay one clip side by side with itself, once for each of some strata of time."""
        seed, mesh, count = self._run.validation.noise_seed, self._mesh, len(strata)
        key = self.infos[index].key
        rows = padded_rows(count * len(clip.tokens), mesh.layout)
        pack = collator.pack([clip] * count, [self._run.validation.captions] * count, rows)
        # Golden-ratio offsets spread the times of all clips evenly over the objective's range: a
        # fixed quadrature, so that only the noise x_0 differs between draws.
        offset = _offset_of(index)
        noise = [
            self._objective.noise(_draw_of(seed, draw, key, j), tuple(clip.tokens.shape))
            for j in strata.tolist()
        ]
        times = self._objective.strata(self._times, offset).to(torch.float32)
        batch = MicroBatch(
            pack=own_rows(pack, mesh.layout, mesh.rank),
            x_0=own_noise(noise, rows, mesh),
            t=pack.times(torch.cat([times[s] for s in self._strata_of(clip, key, strata)])),
            keys=[key] * count,
            tokens=pack.num_tokens,
            values=int(pack.valid.sum()),
            flops=0,
        )
        # Copies, since views of its rows would keep whole packs in memory for the whole run.
        held = replace(batch, pack=batch.pack.clone(), x_0=batch.x_0.clone())
        return _Item(held, index, draw, int(strata[0]), batch.values / count, counts)

    def _strata_of(
        self, clip: PackItem, key: str, strata: Int[Tensor, " T"]
    ) -> list[Int[Tensor, " n"]]:
        """Return for each stratum those of a clip's spans.

        Spans of their own times stand at others, a fixed number of strata apart: so each of them
        is seen at every stratum once, as a whole clip is.
        """
        count = 1 if clip.spans is None else len(clip.spans.given)
        apart = torch.zeros(count, dtype=torch.long)
        if self._task is Task.diffusion_forcing:
            rng = generator(self._run.validation.noise_seed, "val-apart", key, 0)
            apart[1:] = torch.from_numpy(rng.integers(self._times, size=count - 1))
        return [(stratum + apart) % self._times for stratum in strata.tolist()]

    def measure(
        self, model: Callable[[TokenPack, Tensor, Tensor], Tensor], draws: int = NOISE_DRAWS
    ) -> Validation:
        """Measure a whole model; with one draw the noise is not known and given as nan."""

        return self.measure_by(_errors_of(model, self._objective), draws)

    def measure_by(
        self,
        errors_of: Callable[[list[MicroBatch]], list[Tensor]],
        draws: int = NOISE_DRAWS,
        should_stop: Callable[[], bool] | None = None,
    ) -> Validation:
        """Measure by a function that gives each batch's errors of own rows, or none; collective.

        Raises Stopped on all ranks once ``should_stop`` holds on any.
        """
        return self._summarise(*self._collect(errors_of, draws, should_stop))

    def measure_clips(
        self, model: Callable[[TokenPack, Tensor, Tensor], Tensor]
    ) -> tuple[Validation, Float[Tensor, " N"]]:
        """Measure a whole model; also return each clip's own loss, in the order of ``infos``."""
        errors, values = self._collect(_errors_of(model, self._objective), NOISE_DRAWS)
        return self._summarise(errors, values), errors.mean((1, 2)) / values

    def _collect(
        self,
        errors_of: Callable[[list[MicroBatch]], list[Tensor]],
        draws: int,
        should_stop: Callable[[], bool] | None = None,
    ) -> tuple[Float[Tensor, "N draws strata"], Float[Tensor, " N"]]:
        """Return summed squared errors of each clip, draw and time, and each clip's values."""
        strata, mesh = self._times, self._mesh
        errors = torch.zeros(self.num_clips, NOISE_DRAWS, strata, dtype=torch.float64)
        values = torch.zeros(self.num_clips, dtype=torch.float64)
        items = [item for item in self._items if item.draw < draws]
        size = _CLIPS_A_LOOK * mesh.layout.pp if should_stop is not None else len(items)
        for start in range(0, len(items), max(1, size)):
            if should_stop is not None and mesh.any(should_stop()):
                raise Stopped
            chunk = items[start : start + size]
            found = errors_of([item.batch.to(mesh.device) for item in chunk])
            for item, error in zip(chunk, found, strict=False):  # only the last stage finds any
                if item.counts:
                    rows = error.double().cpu()
                    numbers = item.batch.pack.segment + item.first
                    errors[item.clip, item.draw].index_add_(0, numbers, rows)
        for item in items:
            if item.counts and mesh.leads_replica:
                values[item.clip] = item.values
        summed = mesh.sum(*errors.flatten().tolist(), *values.tolist())
        errors = torch.tensor(summed[: errors.numel()], dtype=torch.float64).view_as(errors)
        values = torch.tensor(summed[errors.numel() :], dtype=torch.float64)
        return errors[:, :draws], values

    def _summarise(self, errors: Tensor, values: Tensor) -> Validation:
        """Reduce errors (clips, draws, strata) to a loss with its noise."""
        draws, strata = errors.shape[1], errors.shape[2]
        total = values.sum()
        noise = float("nan")
        if draws == 2:
            # Var of the mean of two draws, summed over independent clips: (d / 2)^2 each.
            difference = (errors[:, 0] - errors[:, 1]).sum(1) / strata
            noise = float((difference / 2).square().sum().sqrt() / total)
        return Validation(
            loss=float(errors.sum() / (draws * strata) / total),
            noise=noise,
            by_time=(errors.sum(dim=(0, 1)) / draws / total).tolist(),
            clips=self.num_clips,
            tokens=self.num_tokens,
            groups=self._grouped(errors, values),
            strata=strata_of(
                errors, values, [_offset_of(i) for i in range(self.num_clips)], self._trained
            ),
        )

    @cached_property
    def _trained(self) -> list[float]:
        """The share of training times in each stratum."""
        window = self._run.objective.t_range
        strata = number_of_strata(self._times)
        return trained_shares(self._objective, self._tokens, window, strata)

    def _grouped(self, errors: Tensor, values: Tensor) -> list[Group]:
        """Sum errors (clips, draws, strata) by world and shape, in the order of the names."""
        draws = errors.shape[1]
        by_draw = errors.mean(2)
        means = by_draw.mean(1)
        spread = by_draw[:, 0] - by_draw[:, 1] if draws == 2 else torch.full_like(means, torch.nan)
        members: dict[tuple[str, int, int, int], list[int]] = {}
        for clip, info in enumerate(self.infos):
            shape = (world_of(info.source), info.num_frames, info.height, info.width)
            members.setdefault(shape, []).append(clip)
        return [
            Group(
                *shape,
                clips=len(clips),
                tokens=sum(self._tokens[clip] for clip in clips),
                values=float(values[clips].sum()),
                errors=float(means[clips].sum()),
                variance=float((spread[clips] / 2).square().sum()),
            )
            for shape, clips in sorted(members.items())
        ]


def refuse_unmeasured(run: RunConfig) -> None:
    """Raise ValueError on a task that no clip of the first validation split is large enough for.

    A run would else learn it, and find at its end that nothing tells how well.
    """
    split, count = run.validation.splits[0], run.validation.samples
    tasks = beside_text(run.objective.tasks)
    infos = fixed_order(read_split(run.data, split).infos)[:count] if tasks else []
    sizes = {run.codec.latent_shape(i.num_frames, i.height, i.width) for i in infos}
    for task in tasks:
        if not any(can(task, size) for size in sizes):
            raise ValueError(
                f"objective.tasks.{task}={run.objective.tasks[task]:g}: none of the {len(infos)} "
                f"clips of validation.splits={split} is long enough for it. Leave it out, or "
                "validate on longer ones."
            )


def _offset_of(clip: int) -> float:
    """Return where the times of a clip lie within their strata."""
    return clip * _GOLDEN % 1.0


def _errors_of(
    model: Callable[[TokenPack, Tensor, Tensor], Tensor], objective: Objective
) -> Callable[[list[MicroBatch]], list[Tensor]]:
    """Return the errors of a whole model on batches."""

    @torch.no_grad()
    def errors(batches: list[MicroBatch]) -> list[Tensor]:
        return [objective.measured(model, b.pack, b.x_0, b.t) for b in batches]

    return errors


def _draw_of(seed: int, number: int, key: str, stratum: int) -> Draw:
    """Return the fixed draws of one clip in one stratum; ``number`` is that of the draw."""

    def draw(purpose: str, shape: tuple[int, ...]) -> Tensor:
        return normal(shape, seed, f"val-{purpose}-{number}", key, stratum)

    return draw
