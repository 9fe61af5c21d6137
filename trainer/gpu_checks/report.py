"""Rows of the table: a check's cases are run one by one, and none stops the others."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

WIDTHS = {
    "check": 10,
    "compared": 62,
    "result": 26,
    "tolerance": 26,
    "seconds": 7,
    "verdict": 7,
}


class Verdict(StrEnum):
    """How a case ended; a skipped one says why."""

    passed = "pass"
    failed = "fail"
    skipped = "skipped"


@dataclass(frozen=True)
class Row:
    """One line of the table. tolerance: what the result had to be; a dash where it is a figure."""

    check: str
    compared: str
    result: str
    tolerance: str
    seconds: float
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        values = {**asdict(self), "seconds": f"{self.seconds:.1f}"}
        line = " | ".join(str(values[key]).ljust(width) for key, width in WIDTHS.items()).rstrip()
        return f"{line}({self.reason})" if self.reason else line


def heading() -> str:
    """Return the table's first two lines."""
    names = " | ".join(name.ljust(width) for name, width in WIDTHS.items())
    return f"{names.rstrip()}\n" + "-+-".join("-" * width for width in WIDTHS.values())


@dataclass(frozen=True)
class Settings:
    """device: "cuda" or "cpu". quick: the smallest sizes, to see that the command runs."""

    device: torch.device
    quick: bool

    @property
    def on_cuda(self) -> bool:
        """Whether there is something to prove."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Finding:
    """What a case found.

    passed: None for a figure that nothing is asked of. seconds: where the work was done before.
    """

    result: str
    tolerance: str = "-"
    passed: bool | None = None
    seconds: float | None = None


class Skip(Exception):
    """This case cannot run here; the message says why."""


@dataclass(frozen=True)
class Case:
    """One line to be: what is compared, and the work that finds it."""

    compared: str
    work: Callable[[], Finding]


def within(error: float, bound: float) -> Finding:
    """Judge a relative error."""
    return Finding(f"{error:.1e}", f"at most {bound:.0e}", error <= bound)


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest expected value; NaN counts as infinite."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
    return error if error == error else float("inf")


def run_cases(check: str, cases: Iterator[Case]) -> Iterator[Row]:
    """Carry out a check's cases; an exception fails its case and the next one goes on."""
    for case in cases:
        begun, reason = time.monotonic(), ""
        try:
            finding = case.work()
            verdict = Verdict.failed if finding.passed is False else Verdict.passed
        except Skip as skip:
            finding, verdict, reason = Finding("-"), Verdict.skipped, str(skip)
        except Exception as error:  # noqa: BLE001 - the table reports whatever went wrong
            traceback.print_exc()
            finding, verdict = Finding(type(error).__name__), Verdict.failed
            reason = str(error).strip().split("\n")[0][:200]
        seconds = finding.seconds or time.monotonic() - begun
        yield Row(check, case.compared, finding.result, finding.tolerance, seconds, verdict, reason)


def append(path: Path, row: Row) -> None:
    """Add a row to a file of JSON lines."""
    with path.open("a") as stream:
        stream.write(json.dumps(asdict(row)) + "\n")


def read_rows(path: Path) -> list[Row]:
    """Read the rows that :func:`append` wrote."""
    if not path.exists():
        return []
    records = (json.loads(line) for line in path.read_text().splitlines())
    return [Row(**{**record, "verdict": Verdict(record["verdict"])}) for record in records]
