"""The columns of runs that figures can show: what runs.csv holds, and what follows from it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sweeps.report.inputs.histories import History
from sweeps.report.inputs.isoflop import to_number
from sweeps.report.wording import heading
from sweeps.study.archive import losses_by_part

RATIO, REDUCIBLE = "tokens_per_param", "reducible_loss"
# What says nothing of a run's setting or outcome, and what stands in two columns.
_LEFT_OUT = ("name", "excluded", "reason", "cluster", "status", "asked_tokens", "spent_flops")
_WORDS = ("phase", "arm", "length", "study")
_LABELS = {
    "params": "parameters N", "tokens": "tokens D", "flops": "compute C (FLOPs)",
    "flops_6nd": "6ND (FLOPs)", "loss": "validation loss", RATIO: "tokens per parameter D/N",
    REDUCIBLE: "reducible loss L − E", "loss_real": "loss on real video", "lr": "learning rate",
    "batch_tokens": "batch (tokens)", "loss_noise": "noise of the loss", "budget": "budget (FLOPs)",
}  # fmt: skip
_FIRST = ("params", "tokens", "flops", RATIO, "loss", REDUCIBLE)
_WIDE = 4.0  # largest over smallest, from which an axis is logarithmic
MOST_COLOURS = 12


@dataclass(frozen=True)
class Column:
    """A value of every run. kind: number, or word (a category). log: its axis, to begin with."""

    key: str
    label: str
    kind: str
    log: bool
    values: list[float | str | None]

    @property
    def choices(self) -> int:
        """Return how many different values there are."""
        return len({value for value in self.values if value is not None})

    @property
    def groups(self) -> bool:
        """Return whether it parts the runs into groups that colours can tell apart."""
        return 1 < self.choices <= MOST_COLOURS and self.choices < len(self.values)


def columns_of(histories: Sequence[History], floor: float = math.nan) -> list[Column]:
    """Return every column that varies over the runs, the usual ones first.

    floor: the loss that a law says cannot be reduced; NaN where it says none.
    """
    rows = [_row(history, floor) for history in histories]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    # A setting that the study varies has a column of its own, beside the usual one of its value.
    varied = {key.rpartition(".")[2] for key in keys if "." in key}
    keys = [key for key in keys if key not in varied]
    keys.sort(key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    found = [_column(key, [row.get(key, "") for row in rows]) for key in keys]
    return [c for c in found if c is not None and (c.choices > 1 or c.key in _FIRST)]


def _row(history: History, floor: float) -> Mapping[str, object]:
    row: dict[str, object] = {k: v for k, v in history.row.items() if k not in _LEFT_OUT}
    params, tokens = to_number(row.get("params")), to_number(row.get("tokens"))
    if params > 0:
        row[RATIO] = tokens / params
    if math.isfinite(floor):
        row[REDUCIBLE] = to_number(row.get("loss")) - floor
    return row | dict(_parts(history))


def _parts(history: History) -> Iterator[tuple[str, object]]:
    """Yield the losses by noise level and by world, where the table does not hold them."""
    if any(key.startswith("loss_t") for key in history.row):
        return
    try:
        yield from losses_by_part(history.result).items()
    except (ArithmeticError, KeyError, TypeError, ValueError, AttributeError):
        return  # a result.json of another form has none


def _column(key: str, cells: Sequence[object]) -> Column | None:
    numbers = [to_number(cell) for cell in cells]
    known = [number for number in numbers if math.isfinite(number)]
    label = _LABELS.get(key, _label(key))
    if key not in _WORDS and known and len(known) >= sum(bool(str(cell)) for cell in cells) / 2:
        log = min(known) > 0 and max(known) > _WIDE * min(known)
        exact = [float(f"{n:.6g}") if math.isfinite(n) else None for n in numbers]
        return Column(key, label, "number", log, list(exact))
    words: list[float | str | None] = [str(cell) or None for cell in cells]
    column = Column(key, label, "word", False, words)
    return column if column.choices <= MOST_COLOURS or key in _WORDS else None


def _label(key: str) -> str:
    part = key.removeprefix("loss_t")
    if part != key and part.isdigit():
        return f"loss at noise level {part}"
    if key.startswith("loss_"):
        return f"loss on {heading(key.removeprefix('loss_'))}"
    return heading(key.rpartition(".")[2])
