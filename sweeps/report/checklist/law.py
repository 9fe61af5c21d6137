"""What the checklist asks of the fit: each answer is read off law.json."""

import math

from data.words import counted
from sweeps.report.checklist.answers import UNKNOWN, Found, Status
from sweeps.report.inputs.isoflop import Inputs, interval, mapping, records, to_number
from sweeps.report.readings import frontier, residuals, seed_spread
from sweeps.report.wording import (
    format_flops,
    format_interval,
    format_percent,
    format_signed_percent,
    format_value,
    level_text,
)


def form_of_law(inputs: Inputs) -> Found:
    """Say what was fitted, by which objective, from how many starts."""
    law = inputs.law
    form = law.get("equation") or law.get("form")
    if not form or not law.get("coefficients"):
        return UNKNOWN
    delta, objective = to_number(law.get("delta")), to_number(law.get("objective"))
    runs = len(records(law.get("residuals")))
    text = f"{form}. "
    if math.isfinite(delta):
        kind = "log residuals" if law.get("residual") in ("log", None) else "residuals"
        text += f"Least sum of Huber(δ = {delta:g}) of {kind} over {counted(runs, 'run')}"
    else:
        text += f"Objective over {counted(runs, 'run')}, its δ not recorded"
    text += f" = {objective:.4g}" if math.isfinite(objective) else ""
    tried = to_number(mapping(law.get("starts")).get("tried"))
    if not math.isfinite(tried):
        return f"{text}; how it was optimised is not known.", Status.caution
    return f"{text}, by damped Newton steps from {tried:.0f} starts (docs/fit.md).", Status.answered


def certificate(inputs: Inputs) -> Found:
    """Say whether the optimum is one."""
    law, starts = inputs.law, mapping(inputs.law.get("starts"))
    tried, agreeing = to_number(starts.get("tried")), to_number(starts.get("agreeing"))
    gradient, condition = to_number(law.get("gradient_norm")), to_number(law.get("condition"))
    if not math.isfinite(tried + agreeing + gradient):
        return UNKNOWN
    text = f"{agreeing:.0f} of {tried:.0f} starts reach the best optimum; gradient norm "
    text += f"{gradient:.2g}; condition number {condition:.2g}"
    failed = to_number(law.get("resamples_failed"))
    if failed > 0:
        text += f"; {format_percent(failed, 0)} of the bootstrap resamples could not be fitted"
    good = law.get("converged") is not False and 2 * agreeing >= tried and not failed > 0.05
    return text + ".", Status.answered if good else Status.caution


def identified(inputs: Inputs) -> Found:
    """Say which coefficients the runs determine."""
    verdicts = {k: mapping(v) for k, v in mapping(inputs.law.get("identified")).items()}
    if not verdicts:
        return UNKNOWN
    good = [name for name, verdict in verdicts.items() if verdict.get("ok") is True]
    bad = [name for name in verdicts if name not in good]
    text = f"yes: {', '.join(good) or 'none'}; no: {', '.join(bad) or 'none'}"
    return text + ".", Status.caution if bad else Status.answered


def worst_residuals(inputs: Inputs) -> Found:
    """Say how far the runs scatter around the fit, and which most."""
    found = sorted(residuals(inputs), key=lambda item: -abs(item.residual))
    scatter, noise = to_number(inputs.law.get("scatter")), seed_spread(inputs)
    if not found:
        return UNKNOWN
    parts = [f"{r.run.name} {format_signed_percent(math.expm1(r.residual))}" for r in found[:3]]
    known = f"log residuals scatter by {scatter:.4f}"
    text = known if math.isfinite(scatter) else "scatter not known"
    if noise:
        text += f", {scatter / noise:.1f} times the noise of seeds"
    odd = bool(noise) and scatter > 2 * noise
    return (
        f"{text}; measured over fitted, the worst: {', '.join(parts)}.",
        Status.caution if odd else Status.answered,
    )


def held_out(inputs: Inputs) -> Found:
    """Say how well the largest budget was predicted."""
    held = mapping(inputs.law.get("held_out"))
    error, skill, noise = (
        to_number(held.get(k)) for k in ("relative_error", "skill", "noise_floor")
    )
    if not math.isfinite(error):
        reason = inputs.law.get("held_out_reason")
        return (f"not made: {reason}.", Status.caution) if reason else UNKNOWN
    text = f"{format_signed_percent(error)} at {format_flops(inputs.held_out_budget)} FLOPs, "
    text += f"predicted {format_value(to_number(held.get('predicted')))}, "
    text += f"{level_text(inputs)} interval {format_interval(*interval(held.get('interval')))}, "
    text += f"measured {format_value(to_number(held.get('actual')))}; "
    text += f"skill {skill:.2f}; " if math.isfinite(skill) else "skill not known; "
    known = f"noise of seeds and of validation draws together {format_percent(noise, 2)}."
    text += known if math.isfinite(noise) else "noise not known."
    return text, Status.answered if held.get("inside") is not False else Status.caution


def extrapolation(inputs: Inputs) -> Found:
    """Say how far each prediction lies beyond the runs, and how far was tested."""
    reach = to_number(mapping(inputs.law.get("held_out")).get("extrapolation_factor"))
    beyond = [
        (to_number(p.get("flops")), to_number(p.get("extrapolation_factor")))
        for p in frontier(inputs) if to_number(p.get("extrapolation_factor")) > 1.01
    ]  # fmt: skip
    if not frontier(inputs):
        return UNKNOWN
    listed = ", ".join(f"{format_flops(c)} FLOPs: {factor:.3g}×" for c, factor in beyond)
    text = f"Beyond the largest fitted run: {listed or 'none'}. "
    text += f"Tested: {reach:.3g}×." if math.isfinite(reach) else "Tested: not known."
    far = any(not factor <= 1.01 * reach for _, factor in beyond)
    return text, Status.caution if far else Status.answered
