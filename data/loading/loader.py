"""From a planned step to decoded packs on this rank, one step ahead of the trainer."""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from data.config import BadSamplePolicy, DataConfig
from data.dataset.remote import FetchError
from data.dataset.sample import SampleInfo
from data.dataset.table import index_digest
from data.dataset.tokens import Cell
from data.decode.pool import DecodeError
from data.loading.accounting import Accounting
from data.loading.batch import Pack, Sample, Step
from data.loading.mixture import Dataset, planner_of, read_mixture, read_split
from data.loading.peers import Peers, hand_over
from data.loading.pieces import cut_long, pieces_of
from data.loading.planner import deal, pack_cost
from data.loading.reader import SampleReader
from data.loading.stream import Planned

log = logging.getLogger(__name__)

STATE_VERSION = 1


@dataclass
class _Ready:
    """A decoded step, its planned numbers, and the planner's state right after it was planned."""

    step: Step
    packs: list[list[Planned]]
    planner_state: dict[str, Any]


class Loader:
    """Yield planned optimizer steps over data.mixture with this rank's packs decoded.

    ``rank`` of ``world`` data-parallel ranks decodes its share of each step's packs. The state
    ignores rank, world and workers, so any layout continues any other. A background thread prepares
    one step ahead. Of ``peers`` that hold parts of one model one reads, for all of them.

    Raises ValueError for a split without index, samples larger than a pack, numbers of packs that
    the ranks cannot share, and members that share a key.
    """

    def __init__(
        self,
        config: DataConfig,
        split: str,
        cell: Cell,
        seed: int,
        rank: int,
        world: int,
        peers: Peers | None = None,
    ) -> None:
        assert 0 <= rank < world
        check_divisible(config.packs_per_step, world)
        self.config = config
        self.cell = cell
        self.rank = rank
        self.world = world
        self.dataset = cut_long(read_mixture(config, split), cell, config.pack_tokens)
        self.infos = self.dataset.infos
        self._digest = index_digest(self.infos)
        self._planner = planner_of(config, self.infos, self.dataset.spans, cell, seed)
        self._peers = peers
        home = self.dataset.members[0]
        reads = peers is None or peers.reads
        self._reader = SampleReader(config, split, self.infos, home) if reads else None
        self._accounting = self._fresh_accounting()
        self._next_index = 0
        self._planner_state = self._planner.state_dict()
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._ahead: Future[_Ready] | None = None

    def _fresh_accounting(self) -> Accounting:
        account = Accounting(samples_in_split=len(self.infos))
        if len(self.dataset.members) > 1:
            for member, share in zip(self.dataset.members, self.dataset.shares, strict=True):
                account.add_member(member.name, member.span.stop - member.span.start, share)
        return account

    def next_step(self) -> Step:
        """Return the next step; the one after it is prepared meanwhile. Collective over peers.

        Raises DecodeError for an unreadable sample if data.on_bad_sample is ``error``, and
        FetchError; the state then still points at this step, which a later call tries again.
        """
        if self._ahead is None:
            self._ahead = self._thread.submit(self._prepare, self._next_index)
        try:
            ready = self._share(self._ahead)
        except (DecodeError, FetchError):
            self._ahead = None
            self._planner.load_state_dict(self._planner_state)
            raise
        self._planner_state = ready.planner_state
        self._next_index += 1
        self._count(ready)
        self._ahead = self._thread.submit(self._prepare, self._next_index)
        return ready.step

    def _share(self, ahead: "Future[_Ready]") -> _Ready:
        """Return the prepared step, with the packs that one of the peers has read."""
        try:
            ready = ahead.result()
        except (DecodeError, FetchError) as error:
            if self._peers is not None:
                hand_over(self._peers, [], [], error)
            raise
        if self._peers is not None:
            ready.step.packs = hand_over(self._peers, ready.step.plan, ready.step.packs)
        return ready

    def _prepare(self, index: int) -> _Ready:
        packs = self._planner.next_step()
        state = self._planner.state_dict()
        lengths = self._planner.lengths
        costs = [pack_cost([lengths[p.index] for p in pack]) for pack in packs]
        mine = deal(costs, self.world)[self.rank]
        plan = [[(self.infos[p.index], p.visit) for p in pack] for pack in packs]
        return _Ready(Step(index, plan, self._read_packs(packs, mine)), packs, state)

    def _read_packs(self, planned: list[list[Planned]], mine: list[int]) -> list[Pack]:
        if self._reader is None:  # a peer reads them
            return []
        # All packs are handed over at once, so that the decoders never wait between two packs.
        packs = [planned[number] for number in mine]
        flat = [(self.infos[p.index], p.visit) for pack in packs for p in pack]
        members = self.dataset.members
        places = [members[self.dataset.member_of(p.index)] for pack in packs for p in pack]
        found = iter(self._reader.read(flat, places))
        made = []
        for number, pack in zip(mine, packs, strict=True):
            samples: list[Sample] = []
            dropped: list[tuple[str, str]] = []
            for _ in pack:
                sample = next(found)
                if isinstance(sample, Sample):
                    samples.append(sample)
                elif self.config.on_bad_sample == BadSamplePolicy.error:
                    raise sample
                else:
                    log.warning("dropped %s: %s", sample.key, sample.reason)
                    dropped.append((sample.key, sample.reason))
            made.append(Pack(samples, self.config.pack_tokens, dropped, number))
        return made

    def _count(self, ready: _Ready) -> None:
        step = ready.step
        self._accounting.add_plan(step.plan, self.config.pack_tokens, self.cell)
        if len(self.dataset.members) > 1:
            for planned in (p for pack in ready.packs for p in pack):
                name = self.dataset.members[self.dataset.member_of(planned.index)].name
                self._accounting.add_visit(name, self._planner.lengths[planned.index])
        decoders = self._accounting.decoders
        for pack in step.packs:
            self._accounting.dropped += pack.dropped
            for sample in pack.samples:
                decoders[sample.decoder] = decoders.get(sample.decoder, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable state after the last step that ``next_step`` returned.

        It is the same on every rank, and does not contain what the prefetch has planned since.
        """
        own = {"decoders": {}, "dropped": [], "caption_rows": 0, "caption_padding": 0}
        counts = self._accounting.to_dict() | own
        return {
            "version": STATE_VERSION,
            "next_index": self._next_index,
            "dataset": self._digest,
            "cell": list(self.cell),
            "parameters": self._planner.parameters(),
            "planner": self._planner_state,
            "accounting": json.loads(json.dumps(counts)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the step at which ``state_dict`` was taken, on any layout.

        Raises ValueError if the dataset or a planning parameter is another one: the remaining
        samples of the epoch could then not be told.
        """
        mine = {
            "version": STATE_VERSION,
            "dataset": self._digest,
            "cell": list(self.cell),
            **{f"data.{k}": v for k, v in self._planner.parameters().items()},
        }
        saved = {k: state.get(k) for k in ("version", "dataset", "cell")}
        saved |= {f"data.{k}": v for k, v in state.get("parameters", {}).items()}
        for name in [*mine, *(name for name in saved if name not in mine)]:
            if saved.get(name) != mine.get(name):
                raise ValueError(
                    f"{name}={mine.get(name)}: must equal the saved loader state's "
                    f"{saved.get(name)}. Use {name}={saved.get(name)}, or start a new run."
                )
        if self._ahead is not None:
            if not self._ahead.cancel():
                # Wait for the planner; whatever the step failed with, it is planned again.
                self._ahead.exception()
            self._ahead = None
        self._planner.load_state_dict(state["planner"])
        self._planner_state = self._planner.state_dict()
        self._next_index = int(state["next_index"])
        self._accounting = Accounting.from_dict(state["accounting"])

    def accounting(self) -> Accounting:
        """Return the accounting of all steps returned so far, also before a resume."""
        return self._accounting

    def close(self) -> None:
        """Stop the prefetch thread and the decoder processes."""
        self._thread.shutdown(cancel_futures=True)
        if self._reader is not None:
            self._reader.close()


def check_divisible(packs_per_step: int, world: int) -> None:
    """Raise ValueError unless the ranks can share the packs of a step equally."""
    if packs_per_step % world:
        below = packs_per_step // world * world
        choices = f"{below} or {below + world}" if below else f"{world}"
        raise ValueError(
            f"data.packs_per_step={packs_per_step}: must be divisible by the number of "
            f"data-parallel ranks={world}. Use {choices}."
        )


def load_fixed(
    config: DataConfig,
    split: str,
    limit: int,
    cell: Cell | None = None,
    peers: Peers | None = None,
) -> list[Sample]:
    """Return the first ``limit`` samples of a fixed, stratified order (0: all), for validation.

    Each stratum (source, still or moving, orientation) is ordered by the SHA-256 of its keys and
    spread evenly over the whole order, so that every prefix has about the split's mixture, and a
    larger limit only adds samples. Clips above data.pack_tokens are cut in time where a cell is
    given. Of ``peers`` one reads, for all of them. Raises DecodeError for an unreadable sample
    under either policy: a validation set that shrinks would move the loss.
    """
    if limit < 0:
        raise ValueError(f"limit={limit}: must be at least 0. Use 0 for all samples.")
    dataset = read_split(config, split)
    infos = fixed_order(dataset.infos)
    infos = infos[:limit] if limit else infos
    if cell is not None:
        infos = [part for info in infos for part in pieces_of(info, cell, config.pack_tokens)]
    if peers is None:
        return _read_fixed(config, split, infos, dataset)
    packs: list[Pack] = []
    failure: DecodeError | FetchError | None = None
    if peers.reads:
        try:
            read = _read_fixed(config, split, infos, dataset)
            packs = [Pack([sample], 0, [], number) for number, sample in enumerate(read)]
        except (DecodeError, FetchError) as error:
            failure = error
    handed = hand_over(peers, [[(info, 0)] for info in infos], packs, failure)
    return [pack.samples[0] for pack in handed]


def _read_fixed(
    config: DataConfig, split: str, infos: list[SampleInfo], dataset: Dataset
) -> list[Sample]:
    reader = SampleReader(config, split, infos, dataset.members[0])
    try:
        samples: list[Sample] = []
        for found in reader.read([(info, 0) for info in infos]):
            if isinstance(found, DecodeError):
                raise found
            samples.append(found)
        return samples
    finally:
        reader.close()


def fixed_order(infos: Sequence[SampleInfo]) -> list[SampleInfo]:
    """Order samples so that every prefix is a stratified sample; see :func:`load_fixed`."""
    strata: dict[str, list[tuple[str, SampleInfo]]] = {}
    for info in infos:
        shape = (info.width > info.height) - (info.width < info.height)
        name = f"{info.source}|{info.num_frames == 1}|{shape}"
        strata.setdefault(name, []).append((sha256_text(info.key), info))
    placed: list[tuple[float, str, SampleInfo]] = []
    for name, members in strata.items():
        members.sort(key=lambda member: member[0])
        # A start of its own for each stratum: otherwise all small strata would come late together.
        start = int(sha256_text(name)[:8], 16) / 2**32
        for place, (digest, info) in enumerate(members):
            placed.append(((place + start) / len(members), digest, info))
    placed.sort(key=lambda entry: entry[:2])
    return [info for _, _, info in placed]


def sha256_text(text: str) -> str:
    """Return the hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
