"""What was looked at before work starts: each thing with its verdict and remedy.

Standard library alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from data.shell import USER_ERROR
from data.words import counted


class Verdict(StrEnum):
    """Whether a run would work."""

    good = "good"
    warning = "warning"
    bad = "bad"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and the remedy unless it is good.

    of: the run, where it is of one among several. size: how bad, among those of one name.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""
    of: str = ""
    size: float = 0.0

    @property
    def title(self) -> str:
        """Its name, with what it is of in brackets."""
        return f"{self.name} ({self.of})" if self.of else self.name

    @property
    def text(self) -> str:
        """Its title and what was found."""
        return f"{self.title}: {self.found}"

    @property
    def is_bad(self) -> bool:
        """Whether a run would break."""
        return self.verdict is Verdict.bad

    def line(self) -> str:
        """Return it as a line for people."""
        text = f"{self.verdict.value:8}{self.text}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.title,
            "verdict": self.verdict.value,
            "found": self.found,
            "remedy": self.remedy,
        }


def judge(name: str, good: bool, found: str, remedy: str, otherwise: Verdict) -> Check:
    """Return a check that is good, or else has a verdict and a remedy."""
    return Check(name, Verdict.good, found) if good else Check(name, otherwise, found, remedy)


def of_error(name: str, error: ValueError) -> Check:
    """Return a bad check of an error's text, ``key=value: rule. remedy``."""
    key, _, rest = str(error).partition(": ")
    rule, _, remedy = rest.partition(". ")
    return Check(key, Verdict.bad, rule, remedy) if remedy else Check(name, Verdict.bad, str(error))


def refuse_bad(checks: Sequence[Check]) -> None:
    """Raise ValueError for the first check that is bad."""
    for check in checks:
        if check.is_bad:
            raise ValueError(f"{check.name}: {check.found}. {check.remedy}")


def shown_bytes(count: float) -> str:
    """Return bytes in MB, or in GB from one on."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def gathered(checks: Sequence[Check]) -> list[Check]:
    """Return those of one kind among runs as one, which has their number and the worst."""
    kinds: dict[object, list[Check]] = {}
    for number, check in enumerate(checks):
        kinds.setdefault((check.name, check.verdict) if check.of else number, []).append(check)
    return [_as_one(members) for members in kinds.values()]


def _as_one(members: Sequence[Check]) -> Check:
    worst = max(members, key=lambda check: check.size)
    if len(members) == 1:
        return worst
    which = f"the worst {worst.of}" if worst.size else f"such as {worst.of}"
    found = f"{counted(len(members), 'run')}, {which}: {worst.found}"
    return replace(worst, found=found, of="")


def tell(checks: Sequence[Check], as_json: bool) -> int:
    """Print checks and whether to go; return the exit status, 2 where something is missing.

    For people those of one kind are one line; JSON holds all.
    """
    bad = sum(check.is_bad for check in checks)
    if as_json:
        print(
            json.dumps({"go": not bad, "checks": [check.to_dict() for check in checks]}, indent=1)
        )
        return USER_ERROR if bad else 0
    for check in gathered(checks):
        print(check.line())
    print(f"no go: {bad} of {len(checks)} checks are bad" if bad else "go")
    return USER_ERROR if bad else 0
