"""What the script of a page draws from: runs, curves and the law as one JSON document."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from sweeps.report.explorer.curves import points_of_a_curve, thinned, was_thinned
from sweeps.report.explorer.table import RATIO, REDUCIBLE, Column, columns_of
from sweeps.report.inputs.histories import History
from sweeps.report.inputs.isoflop import Json, mapping, records, to_number

# A letter of these would end the element that holds the document, or begin another.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_DRAWN = ("flops", "params", "tokens", "loss")


@dataclass(frozen=True)
class Start:
    """What the explorer shows first: two figures as (x, y), and the column that colours."""

    first: tuple[str, str] = ("params", "loss")
    second: tuple[str, str] = ("flops", "loss")
    colour: str = "budget"


@dataclass(frozen=True)
class Law:
    """What a law adds to the runs: its floor and the points of its frontier and minima."""

    floor: float = math.nan
    frontier: list[Json] = field(default_factory=list)
    minima: list[Json] = field(default_factory=list)


def law_of(law: Json) -> Law:
    """Return what figures show of a law.json."""
    floor = to_number(mapping(law.get("coefficients")).get("E"))
    minima = [point for point in records(law.get("isoflop")) if point.get("interior") is not False]
    for point in minima:
        point.setdefault("flops", point.get("budget"))
    return Law(floor, _points(records(law.get("frontier")), floor), _points(minima, floor))


def _points(points: Sequence[Json], floor: float) -> list[Json]:
    found = []
    for point in points:
        shown = {key: _short(to_number(point.get(key))) for key in _DRAWN}
        params, tokens, loss = (to_number(point.get(key)) for key in ("params", "tokens", "loss"))
        shown[RATIO] = _short(tokens / params if params else math.nan)
        shown[REDUCIBLE] = _short(loss - floor)
        if shown["flops"] is not None:
            found.append(shown)
    return sorted(found, key=lambda point: point["flops"])


def document(
    histories: Sequence[History], start: Start, law: Law | None = None, name: str = ""
) -> dict[str, Any]:
    """Return the document of a study's runs: columns over runs, a curve a run, the law.

    Runs keep the order of runs.csv, which numbers them on the page.
    """
    law = law or Law()
    most = points_of_a_curve(len(histories))
    columns = columns_of(histories, law.floor)
    curves = [_curve(history, most) for history in histories]
    note = f"Curves are thinned to {most} points a run." if was_thinned(histories, most) else ""
    return {
        "name": name,
        "runs": [history.name for history in histories],
        "out": [int(_left_out(history.row)) for history in histories],
        "columns": [
            {"key": c.key, "label": c.label, "kind": c.kind, "log": c.log, "values": c.values,
             "colours": c.groups}
            for c in columns
        ],
        "curves": curves,
        "frontier": law.frontier,
        "minima": law.minima,
        "start": _start(start, columns),
        "note": note,
    }  # fmt: skip


def _left_out(row: Mapping[str, str]) -> bool:
    return row.get("excluded", "0").strip().lower() in ("1", "true", "1.0")


def _curve(history: History, most: int) -> dict[str, Any]:
    training, checks = thinned(history, most)
    return {
        part: {key: [_short(v, 4) for v in values] for key, values in series.items()}
        for part, series in (("training", training), ("checks", checks))
    }


def _start(start: Start, columns: Sequence[Column]) -> dict[str, Any]:
    """Return the start, with columns that are not there replaced by the first ones that are."""
    keys = [column.key for column in columns]
    first = next(iter(keys), "")
    figures = [
        [x if x in keys else first, y if y in keys else "loss"]
        for x, y in (start.first, start.second)
    ]
    coloured = [c.key for c in columns if c.groups]
    colour = start.colour if start.colour in coloured else ""
    return {"figures": figures, "colour": colour}


def _short(value: float, digits: int = 6) -> float | None:
    """Return a number in the digits that a picture can show, None for one that is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def as_script(value: Any) -> Markup:
    """Return JSON that no text in it can break out of, whatever element or script holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter, safe in _UNSAFE.items():
        text = text.replace(letter, safe)
    return Markup(text)
