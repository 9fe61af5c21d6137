"""The command line of a prediction: its options, the fit, and the printed answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import write_json
from data.notices import doing
from launch.planner.machine import MachineConfig, load_machine
from sweeps.fit.beside import beside
from sweeps.fit.entries import plain
from sweeps.fit.forms.catalogue import loss_form_of
from sweeps.fit.law import fit_law, runs_of
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.result import Law
from sweeps.fit.rows.table import read_table
from sweeps.predict.answer import DEFAULT_MFU, Answer, Budget, answer, refuse_too_far
from sweeps.predict.source import Source, find_source

READERS: dict[str, Callable[[str], Any]] = {
    "study": str, "gpus": lambda text: int(float(text)), "days": float, "machine": str,
    "price": str, "mfu": float, "flops": float, "precision": str, "form": str, "level": float,
    "resamples": int, "seed": int, "out": str,
}  # fmt: skip
FIT_KEYS = ("level", "resamples", "seed", "delta", "residual", "mean", "fixed")
SHOWN_WARNINGS = 8


def run(argv: Sequence[str]) -> int:
    """Answer a command line.

    Raises:
        ValueError: an option, the study or its table is wrong.
    """
    far = "far=true" in argv
    given, overrides = _parse([a for a in argv if a not in ("--json", "far=true")])
    out = given.pop("out", None)
    machine = _machine(given)
    budget = _budget(given, machine)
    source = find_source(given.pop("study"))
    with doing(f"fitting the law of {source.name}"):
        law, said = fit_asked(source, given, budget)
    if not far:
        refuse_too_far(source, law, budget)
    with doing(f"looking for the best layout of {budget.gpus} {budget.machine}"):
        found = answer(source, law, budget, machine, overrides)
    found = replace(found, notes=[said] * bool(said) + found.notes)
    values = plain(found.to_dict())
    try:
        if out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(out), values)
    except OSError as error:
        raise ValueError(f"out={out}: cannot be written ({error.strerror}). Use another.") from None
    finally:
        # After the file: a reader that leaves ends this process.
        print(json.dumps(values, indent=1) if "--json" in argv else describe(found))
    return 0


def fit_asked(source: Source, given: Mapping[str, Any], budget: Budget) -> tuple[Law, str]:
    """Fit a study's table as it is fitted there, but for what is given; return what to say of it.

    Raises:
        ValueError: as `fit_source`.
    """
    study = beside(source.table)
    asked = {key: given[key] for key in ("form", *FIT_KEYS) if key in given}
    taken = {k: v for k, v in study.taken(asked).items() if k in ("form", "columns", *FIT_KEYS)}
    asked = taken | asked
    options = FitOptions(flops=[budget.flops], **{k: asked[k] for k in FIT_KEYS if k in asked})
    law = fit_source(source, asked.get("form", ""), options, asked.get("columns"))
    # The table's losses are on the study's axis already, so that naming it is all there is to do.
    axis = {} if study.y_axis.plain else {"y_axis": study.y_axis.values}
    return law, study.said(taken | axis)


def fit_source(
    source: Source,
    form: str = "",
    options: FitOptions = DEFAULTS,
    columns: Mapping[str, str] | None = None,
) -> Law:
    """Fit a study's table and keep its notes, as sweeps.fit does.

    form: of the law; the study's own when empty. columns: of the table (ours -> the table's).

    Raises:
        ValueError: the form splits nothing into params and tokens, or the table makes no law.
    """
    form = form or source.form
    table = read_table(source.table, loss_form_of(form), dict(columns or {}))
    law = fit_law(runs_of(table), form, options)
    return replace(law, warnings=table.notes + law.warnings)


def _parse(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, Any] = {}
    overrides: list[str] = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or word.startswith("-"):
            raise ValueError(f"{word}: must be key=value. See --help.")
        if key not in READERS:
            overrides.append(word)
            continue
        if key in given:
            raise ValueError(f"{word}: {key} is given twice. Give it once.")
        try:
            given[key] = READERS[key](text)
        except ValueError:
            raise ValueError(f"{word}: must be a number. See --help.") from None
    for key, example in (("study", "demo"), ("gpus", "512"), ("days", "14")):
        if key not in given:
            raise ValueError(f"{key}=: is required. Give {key}={example}, or see --help.")
    return given, overrides


def _machine(given: dict[str, Any]) -> MachineConfig:
    price = [f"price.per_device_hour={given.pop('price')}"] if "price" in given else []
    return load_machine(given.pop("machine", "h100"), price)


def _budget(given: dict[str, Any], machine: MachineConfig) -> Budget:
    """Return the budget: devices x days x peak x mfu, or flops over devices x days.

    Raises:
        ValueError: a number is out of range.
    """
    gpus, days = given["gpus"], given["days"]
    if gpus < 1 or not 0 < days < 1e5:
        raise ValueError(f"gpus={gpus}, days={days:g}: must be positive. Use gpus=512 days=14.")
    best = max(machine.peak_flops, key=lambda name: machine.peak_flops[name])
    precision = given.get("precision", best)
    most = gpus * days * 86400 * machine.peak(precision)
    if "flops" in given and "mfu" in given:
        raise ValueError("flops= and mfu=: say the same twice. Give one of them.")
    mfu = given["flops"] / most if "flops" in given else given.get("mfu", DEFAULT_MFU)
    if not 0 < mfu <= 1:
        raise ValueError(
            f"mfu={mfu:.3g}: must be a share of the peak in (0, 1]. Use 0.4; {gpus} {machine.name} "
            f"do at most {most:.3g} FLOPs in {days:g} days."
        )
    return Budget(mfu * most, gpus, days, machine.name, precision, mfu)


def _amount(value: float) -> str:
    """Return hours, money or energy in words: whole, below ten by two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def describe(found: Answer) -> str:
    """Return the answer as text for a terminal."""
    budget, law, best = (found.parts[key] for key in ("budget", "law", "optimum"))
    shape, recipe, layout, cost = (found.parts[k] for k in ("shape", "recipe", "layout", "cost"))
    level = f"{100 * law['level']:g} %"

    def span(interval: Sequence[float]) -> str:
        return f"{interval[0]:.3g} to {interval[1]:.3g}"

    lines = [
        f"{budget['gpus']} {budget['machine']} for {budget['days']:g} d at "
        f"{100 * budget['mfu']:.3g} % of their {budget['precision']} peak: "
        f"{budget['flops']:.3g} FLOPs",
        f"Law: {law['form']}, {law['runs']} runs of {law['study']} up to "
        f"{law['largest_flops']:.3g} FLOPs",
        f"  {law['reach']}",
        "",
        f"  {'':<12}{'value':>12}   {level} interval",
        f"  {'N*':<12}{best['params']:>12.4g}   {span(best['intervals']['params'])}",
        f"  {'D*':<12}{best['tokens']:>12.4g}   {span(best['intervals']['tokens'])}",
        f"  {'loss':<12}{best['loss']:>12.5g}   {span(best['intervals']['loss'])}",
        "",
        f"Build  width {shape['width']}, depth {shape['depth']}, head size {shape['head_dim']}: "
        f"{shape['params']:.4g} parameters, {shape['tokens']:.4g} tokens",
        f"       loss {shape['loss']:.5g} ({span(shape['interval'])}); rounding to this shape "
        f"costs {100 * shape['loss_cost']:.2g} % of the loss",
        f"Train  batch {recipe['batch_tokens']:,} tokens, {recipe['steps']:,} steps, peak rate "
        f"{recipe['lr']:.3g}, warm-up {recipe['warmup_steps']:,} steps, decay over the last "
        f"{100 * recipe['decay_share']:.3g} %",
    ]
    if layout:
        lines.append(
            f"Layout {layout['words']}; step {layout['step_seconds']:.3g} s of "
            f"{layout['batch_tokens']:,.0f} tokens, {layout['days']:.3g} days (modelled)"
        )
    else:
        lines.append("Layout none fits (see below)")
    lines.append(
        f"Costs  {_amount(cost['device_hours'])} device-hours, {_amount(cost['money'])} "
        f"{cost['currency']} ({cost['price_source']}, {cost['price_as_of']}), "
        f"{_amount(cost['kilowatt_hours'])} kWh"
    )
    for title, items in (("Notes", found.notes), ("Warnings", found.warnings)):
        if items:
            lines += ["", title, *(f"  - {item}" for item in items[:SHOWN_WARNINGS])]
        if len(items) > SHOWN_WARNINGS:
            lines.append(f"  ... and {len(items) - SHOWN_WARNINGS} more (all with --json)")
    return "\n".join(lines)
