"""What was looked at before work starts: each thing with its verdict and remedy.

Standard library alone.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from data.shell import USER_ERROR


class Verdict(StrEnum):
    """Whether a run would work."""

    good = "good"
    warning = "warning"
    bad = "bad"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was found, and the remedy unless it is good."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether a run would break."""
        return self.verdict is Verdict.bad

    def line(self) -> str:
        """Return it as a line for people."""
        text = f"{self.verdict.value:8}{self.name}: {self.found}"
        return f"{text}. {self.remedy}" if self.remedy else text

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


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


def tell(checks: Sequence[Check], as_json: bool) -> int:
    """Print checks and whether to go; return the exit status, 2 where something is missing."""
    bad = sum(check.is_bad for check in checks)
    if as_json:
        print(
            json.dumps({"go": not bad, "checks": [check.to_dict() for check in checks]}, indent=1)
        )
        return USER_ERROR if bad else 0
    for check in checks:
        print(check.line())
    print(f"no go: {bad} of {len(checks)} checks are bad" if bad else "go")
    return USER_ERROR if bad else 0
