"""What the checklist asks of the runs: from runs.csv, result.json, study.json and data.json."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from data.words import counted
from sweeps.report.checklist.answers import UNKNOWN, Found, Status
from sweeps.report.inputs.isoflop import Inputs, Json, Run, mapping, to_number
from sweeps.report.readings import seed_spread
from sweeps.report.wording import (
    format_count,
    format_percent,
    seeds_text,
    warnings_of,
)
from sweeps.study.results import FREE_EPOCHS
from sweeps.study.spikes import MOST, spikes_in, spikes_said

DECAYED = 0.05  # of the peak: a last step's rate below this share counts as decayed
EMBEDDINGS = ("embedding", "conditioning", "head")  # of params_detail, models/count.py


def counted_params(inputs: Inputs) -> Found:
    """Say what N counts, with and without embeddings."""
    details = [(run, mapping(result.get("params_detail"))) for run, result in _results(inputs)]
    parts = [(run, detail) for run, detail in details if detail]
    if not parts:
        return UNKNOWN
    least, most = (pick(parts, key=lambda p: p[0].params) for pick in (min, max))
    bare = [
        p[0].params - sum(to_number(p[1].get(k) or 0) for k in EMBEDDINGS) for p in (least, most)
    ]
    text = (
        f"N is every trainable parameter, {format_count(least[0].params)} to "
        f"{format_count(most[0].params)}; without embeddings, conditioning and output layer "
        f"{format_count(bare[0])} to {format_count(bare[1])}."
    )
    return text, Status.answered


def counted_flops(inputs: Inputs) -> Found:
    """Say what C counts, beside 6ND."""
    ratios = [run.number("flops_6nd") / run.flops for run in inputs.grid_runs if run.flops > 0]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    if not known:
        return UNKNOWN
    text = (
        "C is exact: every matrix product and attention, forward and backward, no recomputation. "
        f"6ND is {_span(known, '.2f')} times that; both are in the table of runs."
    )
    return text, Status.answered


def counted_tokens(inputs: Inputs) -> Found:
    """Say what D counts, padding apart."""
    shares = [s for s in (r.number("padding_share") for r in inputs.grid_runs) if math.isfinite(s)]
    if not shares:
        return UNKNOWN
    text = "D is the video tokens trained on. Padding is not in D; it fills "
    return f"{text}{_span([100 * s for s in shares], '.2f')} % of the packs.", Status.answered


def repetition(inputs: Inputs) -> Found:
    """Say how often the data were repeated."""
    epochs = [to_number(mapping(r.get("accounting")).get("epochs")) for _, r in _results(inputs)]
    known, whose = [e for e in epochs if math.isfinite(e)], "fitted runs"
    if not known:
        value = to_number(mapping(inputs.data.get("accounting")).get("epochs"))
        known, whose = ([value] if math.isfinite(value) else []), "largest run"
    if not known:
        warned = [w for w in warnings_of(inputs) if "saw every clip" in w]
        return (warned[0], Status.caution) if warned else UNKNOWN
    often = max(known) > FREE_EPOCHS
    text = f"Passes over the training data, {whose}: {_span(known, '.2g')}"
    text += f". Beyond {FREE_EPOCHS} repeats are worth less than D says" if often else ""
    return text + ".", Status.caution if often else Status.answered


def exclusions(inputs: Inputs) -> Found:
    """Say how many runs were left out, and why."""
    if not any("excluded" in run.values for run in inputs.runs):
        return UNKNOWN
    reasons = Counter((run.reason or "no reason given") for run in inputs.runs if run.excluded)
    if not reasons:
        return f"none of {counted(len(inputs.runs), 'run')}.", Status.answered
    listed = [f"{count} × “{reason}”" for reason, count in reasons.most_common(4)]
    more = len(reasons) - len(listed)
    text = f"{sum(reasons.values())} of {len(inputs.runs)}: {'; '.join(listed)}"
    text += f"; {more} more reasons" if more > 0 else ""
    return text + ".", Status.caution if "no reason given" in reasons else Status.answered


def schedules(inputs: Inputs) -> Found:
    """Say whether each run decays to its own end."""
    found = [(run, mapping(result.get("schedule"))) for run, result in _results(inputs)]
    stated = [(run, s) for run, s in found if math.isfinite(to_number(s.get("last_lr")))]
    if not stated:
        return UNKNOWN
    ends = {run.name: to_number(s["last_lr"]) / run.number("lr") for run, s in stated}
    cut = [name for name, end in ends.items() if not end <= DECAYED]
    shares = sorted({(to_number(s.get("warmup")), to_number(s.get("decay"))) for _, s in stated})
    texts = [f"warm-up {format_percent(a, 0)}, decay {format_percent(b, 0)}" for a, b in shares]
    text = f"Shares of each run: {'; '.join(texts)}. "
    missing = len(inputs.grid_runs) - len(stated)
    if cut:
        text += f"{len(cut)} of {len(stated)} end above {format_percent(DECAYED, 0)} of their peak "
        text += f"rate, e.g. {cut[0]}"
    else:
        text += f"All {len(stated)} decay to under {format_percent(DECAYED, 0)} of their peak rate "
        text += "at their own end"
    text += f"; {missing} do not say" if missing else ""
    return text + ".", Status.caution if cut or missing else Status.answered


def recipe(inputs: Inputs) -> Found:
    """Say by which rule learning rate and batch were chosen."""
    recipe = inputs.study.get("recipe")
    if isinstance(recipe, str) and recipe:
        return recipe, Status.answered
    rates = [r.number("lr") for r in inputs.grid_runs if math.isfinite(r.number("lr"))]
    if not rates:
        return UNKNOWN
    text = f"Peak learning rate {_span(rates, '.2g')} (table of runs); its rule is not known."
    return text, Status.unknown


def seed_noise(inputs: Inputs) -> Found:
    """Say what two seeds of one run differ by."""
    noise = mapping(inputs.study.get("seeds_noise"))
    count, spread = to_number(noise.get("n")), seed_spread(inputs)
    if not spread:
        return UNKNOWN
    where = seeds_text(noise)
    seeds = f" over {where}" if where else ", as the table of runs says"
    status = Status.answered if not count < 3 else Status.caution
    return f"{format_percent(spread, 2)} of the loss{seeds}.", status


def draw_noise(inputs: Inputs) -> Found:
    """Say what two draws of the validation noise differ by."""
    shares = [
        to_number(result.get("loss_noise")) / run.loss for run, result in _results(inputs)
        if to_number(result.get("loss_noise")) > 0
    ]  # fmt: skip
    if not shares:
        return UNKNOWN
    text = f"{format_percent(statistics.median(shares), 2)} of the loss (median of {len(shares)} "
    return text + "runs): fixed clips, fixed noise, stratified times.", Status.answered


def spikes(inputs: Inputs) -> Found:
    """Say how many runs had a validation far above its neighbours."""
    curves = {name: [loss for _, loss in curve] for name, curve in inputs.curves.items()}
    names, known = spikes_in(curves)
    if not known:
        return UNKNOWN
    status = Status.caution if len(names) > MOST * known else Status.answered
    return spikes_said(names, known), status


def hardware(inputs: Inputs) -> Found:
    """Say on what the runs ran."""
    env = mapping(inputs.study.get("env"))
    machine = env.get("gpu") or env.get("cpu")
    if not machine and not env.get("cores"):
        return UNKNOWN
    parts = [str(machine or "processor not known")]
    if env.get("cores"):
        parts.append(f"{env['cores']} cores")
    versions = mapping(env.get("packages"))
    named = {"Python": env.get("python"), "torch": versions.get("torch") or env.get("torch")}
    parts += [f"{name} {version}" for name, version in named.items() if version]
    return ", ".join(parts) + ".", Status.answered


def _span(values: Sequence[float], form: str) -> str:
    """Return the ends of some values, or the one that they all round to."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _results(inputs: Inputs) -> list[tuple[Run, Json]]:
    """Return the runs of the isoFLOP curves that left a result behind."""
    return [
        (run, inputs.results[run.name]) for run in inputs.grid_runs if run.name in inputs.results
    ]
