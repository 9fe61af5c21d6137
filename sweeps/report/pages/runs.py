"""What the pages of all kinds show of their runs: the explorer, and what a row opens."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.report.explorer.bundle import MISSING, bundle
from sweeps.report.explorer.document import Law, Start, as_script, document
from sweeps.report.explorer.table import MOST_COLOURS
from sweeps.report.figures.svg import budget_palette
from sweeps.report.inputs.histories import read_histories
from sweeps.report.pages.shared import read_part
from sweeps.report.tables.run_details import HEIGHT, WIDTH, run_details


def runs_parts(
    study_dir: Path,
    rows: Sequence[Mapping[str, str]],
    start: Start,
    *,
    law: Law | None = None,
    drawn: frozenset[str] = frozenset(),
    peak: float = math.nan,
) -> dict[str, Any]:
    """Return what a template needs for the explorer and for the details of every run.

    rows: of runs.csv. drawn: names of the runs that drew samples. peak: FLOP/s of one device.
    """
    histories = read_histories(study_dir, rows)
    return {
        "run_details": run_details(histories, drawn, peak),
        "spark_box": {"width": WIDTH, "height": HEIGHT},
        **explorer_parts(document(histories, start, law) if histories else None),
    }


def explorer_parts(found: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a template needs to draw a document, or to say why it cannot."""
    library = bundle() if found else None
    colours = {"palettes": [_palettes(count) for count in range(MOST_COLOURS + 1)]}
    return {
        "explorer": None if library is None or found is None else as_script(found | colours),
        "explorer_law": bool((found or {}).get("frontier")),
        "explorer_note": (found or {}).get("note", ""),
        "explorer_missing": MISSING if found and library is None else "",
        "explorer_sides": (found or {}).get("sides", []),
        "library": library,
        "explorer_script": read_part("explorer.js"),
    }


def _palettes(count: int) -> dict[str, list[str]]:
    """Return the colours of so many groups, in both themes."""
    return {"light": budget_palette(count), "dark": budget_palette(count, dark=True)}
