"""How N* grows with compute: by three approaches to these runs, beside what others published."""

import math
from dataclasses import dataclass

from sweeps.report.inputs.isoflop import Inputs, interval, mapping, to_number
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.wording import NONE, format_interval, format_value

APPROACHES = (
    ("approach_1", "approach 1: envelope of the curves"),
    ("approach_2", "approach 2: isoFLOP minima"),
    ("approach_3", "approach 3: the fitted form"),
)


OURS = "these runs"  # of a study, or of a table that is none


@dataclass(frozen=True)
class Exponent:
    """The exponent a of N* = N_1 C^a.

    low, high: its interval, NaN where none is known; note: its source, or why there is no value.
    """

    label: str
    what: str
    value: float
    low: float
    high: float
    note: str


# Intervals are those of the papers, each at its own level; a third party transcribed Yin et al.
PUBLISHED = (
    Exponent("Kaplan et al. 2020", "text", 0.73, math.nan, math.nan, "arXiv:2001.08361"),
    Exponent("Hoffmann et al. 2022, approach 1", "text", 0.50, 0.488, 0.502,
             "arXiv:2203.15556, table 2"),
    Exponent("Hoffmann et al. 2022, approach 2", "text", 0.49, 0.462, 0.534,
             "arXiv:2203.15556, table 2"),
    Exponent("Hoffmann et al. 2022, approach 3", "text", 0.46, 0.454, 0.455,
             "arXiv:2203.15556, table 2; its fit is not at its optimum (next row)"),
    Exponent("Besiroglu et al. 2024", "text, approach 3 refitted", 0.513, math.nan, math.nan,
             "arXiv:2404.10102"),
    Exponent("Porian et al. 2024", "text, tuned per size", 0.497, 0.491, 0.505,
             "arXiv:2406.19146"),
    Exponent("Liang et al. 2024", "images, DiT", 0.5681, math.nan, math.nan, "arXiv:2410.08184"),
    Exponent("Yin et al. 2024", "video, DiT", 0.415, math.nan, math.nan,
             "arXiv:2411.17470, as transcribed by third parties"),
    Exponent("HunyuanVideo 2024, images", "images, DiT", 0.563, math.nan, math.nan,
             "arXiv:2412.03603"),
    Exponent("HunyuanVideo 2024, video", "video, DiT", 0.362, math.nan, math.nan,
             "arXiv:2412.03603"),
)  # fmt: skip


def own_exponents(inputs: Inputs) -> list[Exponent]:
    """Return these runs' exponents in the order of the approaches; value NaN where refused."""
    stated, found = mapping(inputs.law.get("exponents")), []
    for key, label in APPROACHES:
        item = mapping(stated.get(key))
        if item:
            low, high = interval(item.get("interval"))
            value, reason = to_number(item.get("params")), str(item.get("reason") or "")
            found.append(Exponent(OURS, label, value, low, high, reason))
    return found


def bias_text(inputs: Inputs) -> str:
    """Say what approach 2 would get wrong on this grid if the fitted law were true."""
    bias = mapping(mapping(inputs.law.get("exponents")).get("approach_2_bias"))
    factor, shift = to_number(bias.get("params_factor")), to_number(bias.get("exponent"))
    if not math.isfinite(factor + shift):
        return ""
    signed = f"{shift:+.3f}".replace("-", "−")
    return (
        f"Were the fitted law true, approach 2 would on this grid put N* at {factor:.3g} times the "
        f"law's, and its exponent off by {signed}."
    )


def exponent_table(inputs: Inputs) -> Table | None:
    """Return ours, then the published, with sources; None without a law."""
    own = own_exponents(inputs)
    if not own:
        return None
    rows = [
        (
            Cell(item.label),
            Cell(item.what),
            number_cell(item.value, format_value(item.value, 3)),
            Cell(format_interval(item.low, item.high, 3)),
            Cell(item.note or NONE),
        )
        for item in [*own, *PUBLISHED]
    ]
    columns = ("whose", "what", "exponent of N*", "interval", "source, or why there is none")
    return make_table("N* ∝ Cᵃ: ours beside published ones", columns, rows)
