"""All layouts of a model over so many devices: the best few, and why each other one lost."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from data.words import counted
from launch.planner.config import SearchConfig
from launch.planner.machine import MachineConfig
from launch.planner.memory import (
    Memory,
    binary_bytes,
    plan_memory,
    quick_state,
    stage_memory,
)
from launch.planner.network import Network
from launch.planner.speed import Execution, StepTime, step_time
from launch.planner.workload import Clips, batch_of, pack_shape
from models.architecture import specification_of
from models.config import ModelConfig
from trainer.config import RunConfig
from trainer.layout.config import ParallelConfig, Precision, Recompute
from trainer.layout.layout import Coordinates, Layout
from trainer.layout.shapes import part_shape, rank_params

MICROS = (1, 2, 4, 8, 16, 32, 64, 128)
INTERLEAVES = (1, 2, 4)
MOST_KEY_RANKS = 4  # groups of all that can trade heads; more gather what they could recompute
LEAST_BATCH, DEFAULT_BATCH = 1024, 16384  # tokens a device, see SearchConfig.batch_tokens


@dataclass(frozen=True)
class Candidate:
    """A layout with the packs that make its step: pack_tokens, micros of them a replica.

    time: zeros where it does not fit.
    """

    parallel: ParallelConfig
    pack_tokens: int
    micros: int
    memory: Memory
    time: StepTime

    @property
    def packs_per_step(self) -> int:
        """Packs of a step over all replicas."""
        return self.micros * self.parallel.layout.dp

    def overrides(self) -> list[str]:
        """Return the command-line values that make a run of it."""
        p = self.parallel
        values = {
            "parallel.processes": p.processes, "parallel.tp": p.tp, "parallel.cp": p.cp,
            "parallel.pp": p.pp, "parallel.interleave": p.interleave,
            "parallel.zero_stage": p.zero_stage, "parallel.recompute": p.recompute.value,
            "parallel.offload": str(p.offload).lower(), "parallel.precision": p.precision.value,
            "data.pack_tokens": self.pack_tokens, "data.packs_per_step": self.packs_per_step,
        }  # fmt: skip
        return [f"{key}={value}" for key, value in values.items()]


_NO_TIME = StepTime(*[0.0] * 10)  # of what does not fit


@dataclass(frozen=True)
class Losers:
    """Layouts that lost for one reason: how many, and the one that came closest, in words."""

    reason: str
    count: int
    closest: str


@dataclass(frozen=True)
class Found:
    """What a search returns: the best layouts, fastest first, and the groups of losers."""

    batch_tokens: float
    clips: Clips
    looked_at: int
    best: list[Candidate]
    losers: list[Losers]


def search(
    model: ModelConfig,
    machine: MachineConfig,
    clips: Clips,
    settings: SearchConfig,
    batch_tokens: float,
) -> Found:
    """Look at every layout; a step has ``batch_tokens``, whatever packs it is made of."""
    settings.check()
    network, params = Network.of(model), _FirstStage(model)
    fitting: list[Candidate] = []
    excess: list[Candidate] = []
    for parallel, pack_tokens, micros in candidates(model, machine, clips, settings, batch_tokens):
        pack = pack_shape(clips, pack_tokens)
        state = quick_state(params.count(parallel), parallel)
        blocks = -(-model.depth // (parallel.pp * parallel.interleave)) * parallel.interleave
        memory = stage_memory(model, parallel, pack, micros, machine, 0, blocks, state)
        if memory.excess > 0:
            excess.append(Candidate(parallel, pack_tokens, micros, memory, _NO_TIME))
            continue
        batch = batch_of(clips, pack_tokens, micros)
        time = step_time(network, machine, Execution.of(parallel, model), batch)
        fitting.append(Candidate(parallel, pack_tokens, micros, memory, time))
    fitting.sort(key=lambda c: c.time.total)
    best = list(_exact(model, machine, clips, fitting, settings.top))
    losers = _too_large(excess) + (_too_slow(best, fitting) if best else [])
    return Found(batch_tokens, clips, len(fitting) + len(excess), best, losers)


def step_tokens(run: RunConfig, settings: SearchConfig) -> float:
    """Return the tokens of a step, see ``SearchConfig.batch_tokens``."""
    enough = run.batch_tokens >= LEAST_BATCH * settings.gpus
    own = run.batch_tokens if enough else DEFAULT_BATCH * settings.gpus
    return settings.batch_tokens or own


def candidates(
    model: ModelConfig,
    machine: MachineConfig,
    clips: Clips,
    settings: SearchConfig,
    batch_tokens: float,
) -> Iterator[tuple[ParallelConfig, int, int]]:
    """Yield (layout, tokens of a pack, packs a replica) of all that can work."""
    gpus, heads = settings.gpus, model.num_heads
    max_tp = settings.max_tp or machine.devices_per_node
    for tp in _divisors(gpus, min(max_tp, heads)):
        if heads % tp:
            continue
        for cp in _divisors(gpus // tp, MOST_KEY_RANKS * heads // tp):
            if heads // tp % cp and cp % (heads // tp):
                continue  # all that trade heads can, before any gather keys
            for pp in _divisors(gpus // tp // cp, model.depth):
                layout = Layout(tp, cp, gpus // tp // cp // pp, pp)
                yield from _variants(model, layout, clips, settings, batch_tokens)


def _variants(
    model: ModelConfig, layout: Layout, clips: Clips, settings: SearchConfig, batch_tokens: float
) -> Iterator[tuple[ParallelConfig, int, int]]:
    """Vary micro-batches, interleaving, ZeRO and recomputation of a layout."""
    unit = layout.row_shards
    for micros in MICROS:
        pack_tokens = round(batch_tokens / (layout.dp * micros * unit)) * unit
        if pack_tokens < max(clips.longest, unit):
            break
        for interleave in INTERLEAVES if layout.pp > 1 else (1,):
            if (interleave > 1 and micros % layout.pp) or layout.pp * interleave > model.depth:
                continue
            for stage, mode, offload in _choices(layout, settings):
                parallel = ParallelConfig(
                    processes=layout.world, tp=layout.tp, cp=layout.cp, pp=layout.pp,
                    interleave=interleave, zero_stage=stage, recompute=mode, offload=offload,
                    precision=settings.precision,
                )  # fmt: skip
                yield parallel, pack_tokens, micros


def _choices(layout: Layout, settings: SearchConfig) -> Iterator[tuple[int, Recompute, bool]]:
    """Yield what ``ParallelConfig.check`` allows of ZeRO stages, recomputation and offloading."""
    for stage in (0, 1, 2, 3):
        if stage == 0 and (settings.precision is Precision.bf16 or layout.pp > 1):
            continue
        if stage == 3 and layout.pp > 1:
            continue
        for mode in Recompute:
            if stage == 3 and mode is Recompute.selective:
                continue
            for offload in (False, True) if settings.offload and stage else (False,):
                yield stage, mode, offload


def _divisors(number: int, most: int) -> list[int]:
    return [n for n in range(1, min(number, most) + 1) if number % n == 0]


class _FirstStage:
    """Parameters of a rank of the first stage, from a model of one block and one of two."""

    def __init__(self, model: ModelConfig) -> None:
        self._depth = model.depth
        self._one, self._two = (replace(model, depth=depth) for depth in (1, 2))
        self._parts: dict[int, tuple[int, int, int]] = {}

    def count(self, parallel: ParallelConfig) -> int:
        """Return them for a layout whose stages are cut evenly."""
        block, first, head = self._of(parallel.tp)
        chunks = parallel.pp * parallel.interleave
        blocks = -(-self._depth // chunks) * parallel.interleave
        return min(blocks, self._depth) * block + first + (head if parallel.pp == 1 else 0)

    def _of(self, tp: int) -> tuple[int, int, int]:
        if tp not in self._parts:
            layout = Layout(tp=tp)
            one, two = (rank_params(m, layout, 1, Coordinates()) for m in (self._one, self._two))
            after = specification_of(self._one).after
            head = sum(prod(part_shape(weight, tp)) for weight in after)
            self._parts[tp] = two - one, one - (two - one) - head, head
        return self._parts[tp]


def _exact(
    model: ModelConfig, machine: MachineConfig, clips: Clips, fitting: list[Candidate], top: int
) -> Iterator[Candidate]:
    """Yield the fastest that fit by the exact count too, one of each set of axes."""
    seen: set[tuple[int, ...]] = set()
    for candidate in fitting:
        if len(seen) == top:
            return
        if candidate.parallel.layout.sizes in seen:
            continue
        parallel = candidate.parallel
        parallel.check(model, candidate.packs_per_step)
        pack = pack_shape(clips, candidate.pack_tokens)
        memory = plan_memory(model, parallel, pack, candidate.micros, machine)
        if memory.excess <= 0:
            seen.add(parallel.layout.sizes)
            yield replace(candidate, memory=memory)


def _too_large(excess: list[Candidate]) -> list[Losers]:
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in excess:
        memory = candidate.memory
        state = memory.params + memory.gradients + memory.optimizer + memory.ema + memory.buffers
        kept = memory.activations + memory.working
        groups["training state" if state > kept else "activations"].append(candidate)
    found = []
    for part, members in groups.items():
        closest = min(members, key=lambda c: c.memory.excess)
        words = f"{binary_bytes(closest.memory.excess)} too much at {describe(closest)}"
        found.append(Losers(f"does not fit: {part}", len(members), words))
    return found


def _too_slow(best: list[Candidate], fitting: list[Candidate]) -> list[Losers]:
    """Group the others by what costs them most over the best layout."""
    winner, chosen = best[0].time, {id(c.time) for c in best}
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in fitting:
        if id(candidate.time) not in chosen:
            groups[_cause(winner, candidate)].append(candidate)
    found = []
    for cause, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        closest = members[0]  # they are sorted by time
        slower = closest.time.total / winner.total - 1
        found.append(Losers(cause, len(members), f"{slower:+.1%} at {describe(closest)}"))
    return found


def _cause(winner: StepTime, candidate: Candidate) -> str:
    time = candidate.time
    costs = {
        "bubble": time.bubble - winner.bubble,
        "communication: tensor": time.tensor - winner.tensor,
        "communication: context": time.context - winner.context,
        "communication: pipeline": time.pipeline - winner.pipeline,
        "communication: data": time.data - winner.data,
        "computes again": time.matmul + time.attention - winner.matmul - winner.attention,
        "elementwise again": time.elementwise - winner.elementwise,
        "optimizer": time.optimizer - winner.optimizer,
    }
    return max(costs, key=lambda name: costs[name])


def describe(candidate: Candidate) -> str:
    """Return a layout in a few words."""
    p = candidate.parallel
    axes = " ".join(
        f"{a}{n}" for a, n in zip(("tp", "cp", "dp", "pp"), p.layout.sizes, strict=True)
    )
    more = f" x{p.interleave}" if p.interleave > 1 else ""
    more += " offload" if p.offload else ""
    return (
        f"{axes}{more} zero{p.zero_stage} {p.recompute.value} {counted(candidate.micros, 'pack')}"
    )
