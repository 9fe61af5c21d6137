"""Numbers and findings in words."""

import math
from datetime import UTC, datetime

from sweeps.report.inputs.isoflop import Inputs, Json, interval, mapping, records, to_number

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
NONE = "–"
_DIRTY = "-dirty"  # what git describe says of a working tree with changes
_COUNTS = ("params", "tokens", "unique_tokens")
# Keys whose words are not the key with spaces.
_HEADINGS = {
    "flops": "FLOPs", "params": "parameters", "lr": "learning rate",
    "best_lr": "best learning rate", "std": "standard deviation",
    "std_percent": "standard deviation (%)", "low_percent": "low (%)",
    "high_percent": "high (%)", "std_of_seeds": "standard deviation of seeds",
    "std_of_draws": "standard deviation of draws", "std_of_both": "standard deviation of both",
    "redraws_at_an_edge_percent": "redraws at an edge (%)", "num_frames": "frames",
    "git": "commit", "psnr": "PSNR (dB)", "ssim": "SSIM", "flicker": "flicker (grey levels)",
    "samples": "clips seen", "above_least_percent": "above the least (%)",
}  # fmt: skip


def format_flops(value: float) -> str:
    """Return ``3×10¹²``: up to two significant digits more where they say something."""
    if not math.isfinite(value) or value <= 0:
        return NONE
    exponent = math.floor(math.log10(value))
    mantissa = round(value / 10**exponent, 2)
    if mantissa >= 10:
        mantissa, exponent = 1.0, exponent + 1
    power = "10" + str(exponent).translate(_SUPERSCRIPTS)
    return power if mantissa == 1 else f"{mantissa:g}×{power}"


def format_count(value: float) -> str:
    """Return three significant digits with a unit: ``136 k``, ``4.1 M``."""
    if not math.isfinite(value):
        return NONE
    for size, unit in _UNITS:
        if abs(value) >= 0.9995 * size:
            return f"{float(f'{value / size:.3g}'):g} {unit}"
    return format_value(value, 3)


def format_value(value: float, digits: int = 4) -> str:
    """Return ``digits`` significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return NONE
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{decimals}f}"


def format_signed_percent(value: float, digits: int = 2) -> str:
    """Return a fraction as a signed percentage, with a true minus."""
    if not math.isfinite(value):
        return NONE
    return f"{100 * value:+.{digits}f} %".replace("-", "−")


def format_percent(value: float, digits: int = 1) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * value:.{digits}f} %" if math.isfinite(value) else NONE


def format_interval(low: float, high: float, digits: int = 3) -> str:
    """Return ``[low, high]``."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"[{format_value(low, digits)}, {format_value(high, digits)}]"


def format_seconds(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if not math.isfinite(seconds):
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def format_moment(text: str) -> str:
    """Return ``2026-11-27 11:56 UTC`` of a moment in ISO 8601; other text as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is None:
        return text
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def heading(key: object) -> str:
    """Return what a key of a file is called as a heading of a table or of an axis."""
    text = str(key)
    return _HEADINGS.get(text, text.replace("_", " "))


def format_by_key(key: str, value: object) -> str:
    """Return a number as its key asks: compute as powers of ten, counts with a unit.

    Empty for what is no number, or none that its key says anything of.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    if key in ("flops", "budget", "spent_flops"):
        return format_flops(float(value))
    if key == "seconds":
        return format_seconds(float(value))
    if key in _COUNTS or (isinstance(value, float) and abs(value) >= 1000):
        return format_count(float(value))
    return ""


def seeds_text(noise: Json) -> str:
    """Return what a spread over seeds was measured on: ``15 points of 3 seeds each``."""
    points = [p for p in noise.get("points") or [] if isinstance(p, list | tuple) and len(p) == 3]
    if len(points) > 1:
        least, most = min(p[2] for p in points), max(p[2] for p in points)
        seeds = f"{least}" if least == most else f"{least} to {most}"
        return f"{len(points)} points of {seeds} seeds each"
    count = to_number(noise.get("n"))
    return f"{count:.0f} seeds{' of one point' * len(points)}" if math.isfinite(count) else ""


def noise_text(noise: Json) -> str:
    """Return what the spread over seeds says; empty where it was not measured."""
    mean, deviation = to_number(noise.get("mean")), to_number(noise.get("std"))
    if not math.isfinite(mean + deviation) or mean == 0:
        return ""
    where = seeds_text(noise)
    pooled = "pooled over " if " points of " in where else "over " if where else ""
    return (
        f"Runs that differ in their seed alone spread by {format_percent(deviation / mean, 2)} of "
        f"their loss (standard deviation{', ' * bool(where)}{pooled}{where}): smaller differences "
        "than about twice that are noise."
    )


def code_warning(study: Json) -> list[str]:
    """Return the warning that a study's code was not committed, where its environment says so."""
    commit = str(mapping(study.get("env")).get("git") or "")
    if not commit.endswith(_DIRTY):
        return []
    return [
        f"The runs' code is commit {commit.removesuffix(_DIRTY)} with changes that were not "
        "committed: that commit alone does not give these runs."
    ]


def level_text(inputs: Inputs) -> str:
    """Return the level of the law's intervals as ``90 %``."""
    level = to_number(inputs.law.get("level"))
    return f"{100 * level:.0f} %" if math.isfinite(level) else "90 %"


def exponents(inputs: Inputs) -> list[tuple[str, tuple[float, float, float], str]]:
    """Return (symbol, (value, low, high), source) of the exponents of N* and D* in compute.

    D*'s exponent is one minus N*'s, as C is proportional to N D.
    """
    stated = mapping(inputs.law.get("exponents"))
    found = []
    for key, source in (
        ("approach_3", "from alpha and beta (approach 3)"),
        ("approach_2", "from the isoFLOP minima (approach 2)"),
    ):
        item = mapping(stated.get(key))
        value, (low, high) = to_number(item.get("params")), interval(item.get("interval"))
        if item and math.isfinite(value):
            found.append(("N*", (value, low, high), source))
            found.append(("D*", (1 - value, 1 - high, 1 - low), source))
        elif item:
            reason = str(item.get("reason") or source)
            found.append(("N*", (math.nan,) * 3, reason))
    return found


def finding(inputs: Inputs) -> str:
    """Return the study's result in one sentence, computed from the law."""
    parts = [_exponent_text(inputs), _held_out_text(inputs)]
    text = "; ".join(part for part in parts if part)
    if not text:
        return "No law was fitted: see the notes below."
    return text[0].upper() + text[1:] + "."


def _exponent_text(inputs: Inputs) -> str:
    clauses = []
    for symbol, (value, low, high), source in exponents(inputs):
        if math.isfinite(value) and "approach 3" in source:
            text = f"{symbol} ∝ C^{value:.2f}"
            if math.isfinite(low):
                text += f" ({level_text(inputs)} interval {low:.2f} to {high:.2f})"
            clauses.append(text)
    return f"compute-optimal parameters and tokens grow as {' and '.join(clauses)}" * bool(clauses)


def _held_out_text(inputs: Inputs) -> str:
    held_out = mapping(inputs.law.get("held_out"))
    predicted, actual = to_number(held_out.get("predicted")), to_number(held_out.get("actual"))
    if not math.isfinite(predicted + actual):
        return ""
    error = format_signed_percent(to_number(held_out.get("relative_error")))
    text = (
        f"the loss at {format_flops(inputs.held_out_budget)} FLOPs was predicted from the smaller "
        f"budgets as {format_value(predicted)} and measured as {format_value(actual)} ({error}"
    )
    skill = to_number(held_out.get("skill"))
    return text + (f", skill {skill:.2f})" if math.isfinite(skill) else ")")


def law_caption(inputs: Inputs) -> str:
    """Return the caption of the law's figure, which says what the line was fitted to."""
    text = (
        "Loss against compute. Thin lines are runs as they train, coloured by budget; circles are "
        "the minima of the isoFLOP curves; the line is the fitted frontier. "
    )
    if not math.isfinite(inputs.held_out_budget):
        return text + "No budget was held out."
    if inputs.held_out_in_fit:
        return text + (
            "It uses all runs; the diamond is the prediction of a second fit that has not seen the "
            "largest budget, and the star what that budget gave."
        )
    return text + "The held-out budget took no part in the fit: the star is what it gave."


def held_out_verdict(inputs: Inputs) -> str:
    """Return whether the prediction held, in words."""
    held_out = mapping(inputs.law.get("held_out"))
    error = abs(to_number(held_out.get("relative_error")))
    noise = to_number(held_out.get("noise_floor"))
    parts = []
    if isinstance(inside := held_out.get("inside"), bool):
        where = "inside" if inside else "outside"
        parts.append(f"The measured loss lies {where} the {level_text(inputs)} interval.")
    if math.isfinite(error) and noise > 0:
        ratio = error / noise
        parts.append(
            "The error is below the noise floor: a better prediction could not be told apart."
            if ratio <= 1
            else f"The error is {ratio:.1f} times the noise floor (seeds and validation draws)."
        )
    skill = to_number(held_out.get("skill"))
    if math.isfinite(skill):
        parts.append(
            "It beats the guess that nothing improves."
            if skill > 0
            else "It is no better than the guess that nothing improves."
        )
    return " ".join(parts)


def warnings_of(inputs: Inputs) -> list[str]:
    """Return the warnings of the law and of the study, none twice.

    Where the law states no list, what its parts say of themselves.
    """
    own = inputs.study.get("warnings")
    law = inputs.law.get("warnings")
    found = [*(law if isinstance(law, list) else _doubts(inputs.law))]
    found += own if isinstance(own, list) else []
    found += code_warning(inputs.study)
    return list(dict.fromkeys(map(str, found)))


def _doubts(law: Json) -> list[str]:
    found = []
    for point in records(law.get("isoflop")):
        if point.get("interior") is False:
            budget = format_flops(to_number(point.get("budget")))
            found.append(f"{budget} FLOPs: no interior minimum. {point.get('reason') or ''}")
    for name, verdict in mapping(law.get("identified")).items():
        if mapping(verdict).get("ok") is False:
            found.append(f"{name} is not identified: {mapping(verdict).get('reason') or ''}")
    return found
