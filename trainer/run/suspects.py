"""Who holds up a run that stands still: two looks at the ranks' signs of life, compared."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Suspect:
    """A rank that holds the others up; unknown parts are empty, an unknown step is -1."""

    rank: int
    host: str
    pid: int
    step: int
    phase: str
    reason: str


def find_suspects(
    before: dict[int, dict[str, Any]], after: dict[int, dict[str, Any]], ranks: Collection[int]
) -> tuple[list[Suspect], str]:
    """Compare two looks at the signs of life of a run that stands still; return who and why.

    ranks: whose signs were read.

    Ranks without a new beat, else the ranks at the lowest step, else nobody: then the summary says
    where everybody waits. A rank whose last sign says that it noticed the stall is not silent.
    """
    # The file server's clock stamped all of these files, so they compare across hosts.
    latest = max((sign["written"] for sign in after.values()), default=0.0)
    silent = [
        _silent(rank, after.get(rank), latest)
        for rank in ranks
        if not _is_alive(before.get(rank), after.get(rank))
    ]
    if silent:
        return silent, "; ".join(suspect.reason for suspect in silent)
    signs = [after[rank] for rank in ranks]
    first, last = min(s["step"] for s in signs), max(s["step"] for s in signs)
    if first == last:
        return [], f"all ranks wait at step {last} in {_phases(signs)}"
    behind = [_behind(sign, last) for sign in signs if sign["step"] == first]
    return behind, "; ".join(suspect.reason for suspect in behind)


def _is_alive(before: dict[str, Any] | None, after: dict[str, Any] | None) -> bool:
    if after is None or after["phase"] == "ended":
        return False
    identity = ("host", "pid", "beat")
    return after["noticed"] or before is None or any(before[k] != after[k] for k in identity)


def _silent(rank: int, sign: dict[str, Any] | None, latest: float) -> Suspect:
    if sign is None:
        return Suspect(rank, "", 0, -1, "", f"rank {rank} never gave a sign of life")
    seconds = max(0.0, latest - sign["written"])
    what = f"gives no sign of life; last at step {sign['step']} in {sign['phase']}"
    if sign["phase"] == "ended":
        what = f"has ended at step {sign['step']}"
    who = f"rank {rank} ({sign['host']}, {sign['pid']})"
    return _suspect(sign, f"{who} {what}, {seconds:.0f} s ago")


def _behind(sign: dict[str, Any], last: int) -> Suspect:
    return _suspect(
        sign,
        f"rank {sign['rank']} is behind: step {sign['step']} in {sign['phase']}, others at {last}",
    )


def _suspect(sign: dict[str, Any], reason: str) -> Suspect:
    known = {key: sign[key] for key in ("rank", "host", "pid", "step", "phase")}
    return Suspect(**known, reason=reason)


def _phases(signs: list[dict[str, Any]]) -> str:
    """Return each phase with its ranks, the rarest first: the odd one out is often the culprit."""
    ranks: dict[str, list[int]] = {}
    for sign in signs:
        ranks.setdefault(sign["phase"], []).append(sign["rank"])
    if len(ranks) == 1:
        return next(iter(ranks))
    ordered = sorted(ranks.items(), key=lambda item: (len(item[1]), item[1]))
    return ", ".join(f"{phase} (rank {_ranges(found)})" for phase, found in ordered)


def _ranges(ranks: list[int]) -> str:
    """Return sorted ranks as text: 0-3, 7."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and parts[-1][-1] == rank - 1:
            parts[-1] = [parts[-1][0], rank]
        else:
            parts.append([rank])
    return ", ".join("-".join(map(str, part)) for part in parts)


def turn_of(rank: int, world: int) -> tuple[int, Collection[int]]:
    """Return when a rank's turn to look at a stall comes, counted from 0, and at whom it looks.

    Four ranks, far apart so that no node holds them all, take turns to look at everybody. The first
    of them that can leaves its report to the others, so that a stall of a thousand ranks is two
    thousand files read and not two million. The others' turn comes after all four's, and is to say
    what became of those.
    """
    reporters = list(dict.fromkeys([0, world // 2, world // 4, 3 * world // 4]))
    if rank in reporters:
        return reporters.index(rank), range(world)
    return len(reporters), sorted({*reporters, rank})
