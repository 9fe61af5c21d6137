"""Which analysis a study asks for, by name."""

from collections.abc import Sequence
from pathlib import Path

from sweeps.fit.options import FitOptions
from sweeps.kinds.points import laws
from sweeps.kinds.points.config import Analysis, PointsConfig
from sweeps.kinds.points.noise import Spread, noise_floor
from sweeps.kinds.points.resolution import resolution
from sweeps.kinds.points.settings import settings
from sweeps.kinds.points.transfer import transfer
from sweeps.study.answer import Finding, Row
from sweeps.study.results import FREE_EPOCHS


def analyse(
    study: PointsConfig,
    rows: Sequence[Row],
    table: Path,
    spread: Spread | None,
    draws: dict[str, list[float]],
) -> Finding:
    """Answer a study's question from its rows, which lie in ``table``.

    spread: over seeds; draws: of each run, the losses under other validation noises.
    """
    level, resamples = study.level, study.resamples
    if study.analysis is Analysis.noise:
        finding = noise_floor(rows, draws, level)
    elif study.analysis is Analysis.transfer:
        finding = transfer(rows, spread, level, resamples)
    elif study.analysis is Analysis.settings:
        finding = settings(rows, spread, level, study.lengths.chosen[0])
    elif study.analysis is Analysis.resolution:
        finding = resolution(rows, spread, level, resamples)
    else:
        options = FitOptions(level=level, resamples=resamples)
        finding = laws.ANALYSES[study.analysis](rows, table, options)
    return with_shared_warnings(finding, study, rows)


def with_shared_warnings(finding: Finding, study: PointsConfig, rows: Sequence[Row]) -> Finding:
    """Add what limits any study: runs without a result, and data that was repeated."""
    lost = [f"{r['name']} ({r['reason']})" for r in rows
            if r["status"] not in ("finished", "left out")]  # fmt: skip
    if lost:
        finding.warnings.append(f"Runs without a result: {', '.join(lost)}.")
    often = [r["epochs"] for r in rows if (r.get("epochs") or 0) > FREE_EPOCHS]
    if often and study.analysis is not Analysis.data:
        finding.warnings.append(
            f"{len(often)} of {len(rows)} runs saw every clip more than {FREE_EPOCHS} times (up to "
            f"{max(often):.1f}): tokens count what was seen, not fresh data."
        )
    return finding
