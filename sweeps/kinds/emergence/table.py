"""abilities.csv and samples.csv: what each run can do, beside its controls and its loss."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.kinds.emergence.plan import Couple
from sweeps.study.answer import Row
from sweeps.study.results import read_result
from trainer.probes.likelihood.config import FILE as PROBES
from trainer.probes.likelihood.config import Look
from trainer.probes.samples.config import FILE as SAMPLES

# Of each: the value as a share of the lawful clips' errors, and its 95 % interval over pairs.
MARGINS = ("run", "twin", "untrained", "reversed", "gaussian")
COLUMNS = (
    "name", "world", "property", "law", "look", "budget", "flops", "params", "seed", "best", "loss",
    "twin_loss", "learned", "learned_error", "learned_low", "learned_high",
    *(f"{name}{end}" for name in MARGINS for end in ("", "_low", "_high")),
    "accuracy", "effect", "z", "exact_accuracy", "pairs",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A couple whose runs finished: their results, and what the probes found, None without any."""

    couple: Couple
    name: str
    law: dict[str, Any]
    twin: dict[str, Any]
    found: dict[str, Any] | None
    drawn: dict[str, Any] | None = None

    @property
    def loss(self) -> float:
        """Loss of the run on lawful held-out clips."""
        return float(self.law["loss"])


def read_asked(couple: Couple, law: Path, twin: Path) -> Asked | None:
    """Return a couple with its results, None while one of its runs has not finished."""
    results = [read_result(folder) or {} for folder in (law, twin)]
    if any(result.get("status") != "finished" for result in results):
        return None
    found, drawn = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        for path in (law / PROBES, law / SAMPLES)
    )
    return Asked(couple, law.name, results[0], results[1], found, drawn)


def best_params(asked: Sequence[Asked], seeds: Sequence[int]) -> dict[float, int]:
    """Return the parameters of each budget's best size, by the mean loss over some seeds."""
    losses: dict[float, dict[int, list[float]]] = {}
    for each in asked:
        if each.couple.seed in seeds:
            of = losses.setdefault(each.couple.budget, {})
            of.setdefault(each.couple.params, []).append(each.loss)
    return {
        budget: min(of, key=lambda params: sum(of[params]) / len(of[params]))
        for budget, of in losses.items()
    }


def ability_rows(asked: Sequence[Asked], seeds: Sequence[int]) -> list[Row]:
    """Return the rows of abilities.csv; a run that was not probed has none."""
    best = best_params(asked, seeds)
    rows: list[Row] = []
    for each in asked:
        for prop in (each.found or {}).get("properties", []):
            for look in [look for look in Look if look in prop]:
                rows.append(_row(each, prop, look.value) | {"pairs": (each.found or {})["pairs"]})
                rows[-1]["best"] = int(best.get(each.couple.budget) == each.couple.params)
    return rows


def _row(each: Asked, prop: dict[str, Any], look: str) -> Row:
    margins, learned = prop[look]["margins"], prop[look]["differences"]["learned"]
    row: Row = {
        "name": each.name,
        "world": prop["world"],
        "property": prop["property"],
        "law": int(prop["law"]),
        "look": look,
        "budget": each.couple.budget,
        "flops": each.law["flops"],
        "params": each.couple.params,
        "seed": each.couple.seed,
        "loss": each.loss,
        "twin_loss": float(each.twin["loss"]),
        "learned": learned["value"],
        "learned_error": learned["error"],
        "learned_low": learned["low"],
        "learned_high": learned["high"],
    }
    for name in MARGINS:
        row |= {f"{name}{end}": margins[name][key]
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
    own = margins["run"]
    row |= {"accuracy": own["accuracy"], "effect": own["effect"], "z": own["z"]}
    row["exact_accuracy"] = margins["exact"]["accuracy"] if "exact" in margins else None
    return row


SOURCES = ("true", "run", "twin", "static", "shuffled", "wrong")
SAMPLE_COLUMNS = (
    "name", "world", "source", "budget", "params", "seed", "best", "loss", "breaks", "breaks_low",
    "breaks_high", "vanish", "appear", "colour", "place", "size", "away_1", "away_2", "away_3",
    "away_4", "right_there", "right_colour", "right_place", "right_all", "clips",
)  # fmt: skip


def sample_rows(asked: Sequence[Asked], seeds: Sequence[int]) -> list[Row]:
    """Return the rows of samples.csv: a source of continuations, a world and a run each.

    ``halves`` is no column of it: what the test of a composite reads.
    """
    best = best_params(asked, seeds)
    rows: list[Row] = []
    for each in asked:
        for world in (each.drawn or {}).get("worlds", []):
            for source in (name for name in SOURCES if name in world["sources"]):
                of = world["sources"][source]
                row: Row = {
                    "name": each.name,
                    "world": world["world"],
                    "source": source,
                    "budget": each.couple.budget,
                    "params": each.couple.params,
                    "seed": each.couple.seed,
                    "best": int(best.get(each.couple.budget) == each.couple.params),
                    "loss": each.loss,
                    "breaks": of["breaks"]["value"],
                    "breaks_low": of["breaks"]["low"],
                    "breaks_high": of["breaks"]["high"],
                    "clips": of["clips"],
                    "halves": of["halves"],
                }
                row |= of["by_kind"]
                row |= {f"away_{n}": at["value"] for n, at in enumerate(of["away"], 1)}
                row |= {f"right_{part}": share for part, share in of["parts"].items()}
                rows.append(row)
    return rows
