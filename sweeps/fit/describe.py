"""A law as a table for a terminal."""

from collections.abc import Sequence
from typing import Any

from sweeps.fit.words import counted


def describe(law: dict[str, Any]) -> str:
    """Return the law as a table for a terminal."""
    percent = f"{100 * law['level']:g} %"
    starts = law["starts"]
    lines = [
        law.get("equation") or law["form"],
        f"{counted(len(law['residuals']), 'run')} fitted, {len(law['excluded'])} excluded; "
        f"objective {law['objective']:.10g}; {starts['agreeing']} of {starts['tried']} starts "
        f"agree; gradient {law['gradient_norm']:.1e}; condition {_shown(law['condition'])}",
        *_choice(law),
        "",
        f"  {'coefficient':<12}{'value':>12}   {percent + ' interval':<26}identified",
    ]
    for name, value in law["coefficients"].items():
        verdict = law["identified"][name]
        said = verdict["reason"] or "yes" if verdict["ok"] else f"NO: {verdict['reason']}"
        lines.append(
            f"  {name:<12}{_shown(value):>12}   {_range(law['intervals'][name]):<26}{said}"
        )
    lines += ["", *_frontier(law, percent)]
    if "isoflop" in law:
        lines += ["", *_isoflop(law), "", *_exponents(law)]
    lines += _recipe(law)
    lines += [
        "",
        *_held_out(law),
        *_rolling(law),
        *_sensitivity(law),
        *_against(law),
        *_nested(law),
        *_predictions(law),
    ]
    if law["warnings"]:
        lines += ["", "Warnings", *(f"  - {w}" for w in law["warnings"])]
    return "\n".join(lines)


def _choice(law: dict[str, Any]) -> list[str]:
    """Return what was chosen and why; nothing where a form was named."""
    choice = law.get("choice")
    if choice is None:
        return []
    both = f"{law['form']} and the nearest budgets together"
    by = {"nearby": "the nearest budgets", "both": both}.get(choice["loss_by"], choice["loss_by"])
    return [f"Chosen: {law['form']} for N* and D*, {by} for the loss: {choice['reason']}."]


def _nested(law: dict[str, Any]) -> list[str]:
    """Return whether the rows ask for a form that holds another one."""
    return [
        f"{test['small']} within {test['large']}: these runs "
        f"{'ask for the larger form' if test['p'] < 0.05 else 'do not ask for the larger form'} "
        f"(likelihood ratio {_shown(test['statistic'])} on {test['degrees']}, p = {test['p']:.2g})"
        for test in law.get("nested") or []
    ]


def _rolling(law: dict[str, Any]) -> list[str]:
    """Return how each method foresaw the budgets so far, the best first."""
    records = [r for r in law.get("rolling_origin") or [] if r["forecasts"]]
    if not records:
        return []
    lines = [
        "",
        "Fitted to fewer budgets and asked for the larger ones (rolling origin, errors of the best "
        "loss in %)",
        f"  {'':<30}{'forecasts':>10}{'mean':>8}{'next':>8}{'bias':>8}{'worst':>8}",
    ]
    for r in records:
        values = [r[k] for k in ("mean_absolute_error", "next_budget_error", "bias", "worst")]
        shown = "".join(f"{100 * v:>8.2f}" for v in values)
        lines.append(f"  {r['method']:<30}{r['forecasts']:>10}{shown}")
    return [*lines, ""]


def _recipe(law: dict[str, Any]) -> list[str]:
    if not (found := law.get("recipe")):
        return []
    lines = ["", f"Learning rate and batch together, {found['points']} points:"]
    for knob in ("lr", "batch"):
        of = found[knob]
        said = [
            f"{name} {_shown(value)} ({_range(of['intervals'][name])})"
            for name, value in of["coefficients"].items()
        ]
        lines.append(f"  form={of['form']}: {', '.join(said)}")
    regret = found["regret"]
    lines.append(
        f"  a point left out is chosen for at a loss {100 * regret['mean']:.2g} % above its least "
        f"(worst {100 * regret['worst']:.2g} %)"
    )
    return lines


def _range(interval: Sequence[float | None] | None) -> str:
    if interval is None or None in interval:
        return "unknown"
    return f"{interval[0]:.4g} to {interval[1]:.4g}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _ratio(row: dict[str, Any]) -> str:
    """Return tokens per parameter."""
    return f"{row['tokens'] / row['params']:.3g}" if row["params"] else "-"


def _frontier(law: dict[str, Any], percent: str) -> list[str]:
    if not law["frontier"]:
        return [f"Frontier: none, {law.get('frontier_reason')}."]
    lines = [
        f"  {'FLOPs':>10}{'N*':>12}{'D*':>12}{'D*/N*':>8}{'loss':>10}   loss {percent} interval"
    ]
    for row in law["frontier"]:
        lines.append(
            f"  {row['flops']:>10.3g}{_shown(row['params']):>12}{_shown(row['tokens']):>12}"
            f"{_ratio(row):>8}{_shown(row['loss']):>10}   {_range(row['intervals']['loss'])}"
        )
        if feasible := row.get("feasible"):
            lines.append(
                f"  {'buildable':>10}{_shown(feasible['params']):>12}"
                f"{_shown(feasible['tokens']):>12}{_ratio(feasible):>8}"
                f"{_shown(feasible['loss']):>10}   "
                f"costs {100 * feasible['loss_cost']:.2g} % of the loss"
            )
    return lines


def _isoflop(law: dict[str, Any]) -> list[str]:
    if not law["isoflop"]:
        return ["IsoFLOP minima: none, the runs do not group by compute."]
    lines = [f"  {'budget':>10}{'N (minimum)':>14}{'loss':>10}   N interval"]
    for row in law["isoflop"]:
        if row["interior"]:
            said = f"{row['params']:>14.5g}{row['loss']:>10.5g}   {_range(row['interval'])}"
        else:
            said = f"{'refused':>14}{'':>10}   {row['reason']}"
        lines.append(f"  {row['budget']:>10.3g}{said}")
    return lines


def _exponents(law: dict[str, Any]) -> list[str]:
    """Return the three approaches side by side."""
    lines = ["Exponent of N* in compute"]
    for key, words in (
        ("approach_1", "1, envelope"),
        ("approach_2", "2, isoFLOP minima"),
        ("approach_3", "3, this form"),
    ):
        item = law["exponents"].get(key) or {}
        if item.get("params") is None:
            lines.append(f"  {words:<20}{'none':>8}   {item.get('reason') or ''}")
        else:
            lines.append(f"  {words:<20}{item['params']:>8.3f}   {_range(item.get('interval'))}")
    if spread := law["exponents"].get("spread"):
        lines.append(
            f"  {'all, and all forms':<20}{_shown(spread['params'])[:5]:>8}   "
            f"{_range(spread['interval'])}"
        )
    if bias := law["exponents"].get("approach_2_bias"):
        lines.append(
            f"  approach 2 on this grid, were the form true: N* times {bias['params_factor']:.3f}, "
            f"exponent {bias['exponent']:+.3f}"
        )
    return lines


def _held_out(law: dict[str, Any]) -> list[str]:
    held = law["held_out"]
    if held is None:
        return [f"Held-out test: none, {law['held_out_reason']}."]
    if "budget" not in held:
        return [
            f"Held-out test: the largest rows ({len(held['rows'])}), left out of the fit, are "
            f"predicted to {100 * held['mean_absolute_relative_error']:.2g} % (mean absolute), the "
            f"very largest to {100 * held['relative_error']:+.2f} %"
        ]
    floor = held["noise_floor"]
    skill = f"{held['skill']:.2f}" if held["skill"] is not None else held["skill_reason"]
    what = "budget" if law.get("isoflop") else "runs of most compute, up to"
    return [
        f"Held-out {what} {held['budget']:.3g} FLOPs, {held['extrapolation_factor']:.3g}x beyond "
        f"the runs fitted: predicted {held['predicted']:.5g}, actual {held['actual']:.5g}, error "
        f"{100 * held['relative_error']:+.2f} %",
        f"  {100 * law['level']:g} % interval {_range(held['interval'])} "
        f"({'inside' if held['inside'] else 'OUTSIDE'}); noise floor "
        f"{'unknown' if floor is None else f'{100 * floor:.2g} %'}; skill {skill}",
        *_nearer(held),
        *_line_through_budgets(held),
        *_other_forms(held),
    ]


def _nearer(held: dict[str, Any]) -> list[str]:
    return [
        f"  by the same fit {near['budget']:.3g} FLOPs, {near['extrapolation_factor']:.3g}x "
        f"beyond: error {100 * near['relative_error']:+.2f} %, interval {_range(near['interval'])} "
        f"({'inside' if near['inside'] else 'OUTSIDE'})"
        for near in held.get("nearer", [])
    ]


def _line_through_budgets(held: dict[str, Any]) -> list[str]:
    if held.get("line_predicted") is None:
        return []
    skill = "" if held["line_skill"] is None else f"; skill {held['line_skill']:.2f}"
    return [
        f"  by a power of compute through the budgets' best losses: {held['line_predicted']:.5g}, "
        f"error {100 * held['line_relative_error']:+.2f} %{skill}"
    ]


def _other_forms(held: dict[str, Any]) -> list[str]:
    found = [
        f"{form} {item['predicted']:.5g} ({100 * item['relative_error']:+.2f} %)"
        for form, item in (held.get("other_forms") or {}).items()
    ]
    return [f"  by other forms: {', '.join(found)}"] if found else []


def _sensitivity(law: dict[str, Any]) -> list[str]:
    rows = law.get("sensitivity") or []
    if len(rows) < 2 or not rows[0]["quantity"]:
        return []
    first = rows[0]["quantity"]
    moved = [
        f"{row['change']} {100 * (row['quantity'] / first - 1):+.2g} %"
        for row in rows[1:]
        if row["quantity"]
    ]
    return [f"The largest prediction moves by: {'; '.join(moved)}"]


def _against(law: dict[str, Any]) -> list[str]:
    found = law.get("against")
    if not found:
        return []
    verdict = "contradict them" if found["p"] < 0.05 else "do not contradict them"
    return [
        f"Published coefficients: these runs {verdict} (likelihood ratio "
        f"{found['statistic']:.4g} on {found['degrees']} degrees, p = {found['p']:.2g}); they "
        f"predict these runs {100 * found['mean_relative_error']:+.2f} % on average"
    ]


def _predictions(law: dict[str, Any]) -> list[str]:
    found = law.get("predictions")
    if not found:
        return []
    if "mae" not in found:
        return [f"{counted(len(found['rows']), 'row')} predicted."]
    by_curve = ""
    if "mae_of_curves" in found:
        by_curve = (
            f", mean over {counted(len(found['mae_by_curve']), 'curve')} "
            f"{found['mae_of_curves']:.5g}"
        )
    return [
        f"{counted(len(found['rows']), 'unseen row')} predicted: mean absolute error "
        f"{found['mae']:.5g} ({100 * found['mean_absolute_relative_error']:.4g} %){by_curve}, "
        f"R2 {_shown(found['r2'])}"
    ]
