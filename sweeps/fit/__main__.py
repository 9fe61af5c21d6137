"""kinescale fit table=FILE.csv out=FILE.json: one table in, one law out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import write_json, write_text
from data.keys import guess
from data.notices import doing
from data.shell import command
from sweeps.fit.bands import bands_text
from sweeps.fit.beside import beside
from sweeps.fit.describe import describe
from sweeps.fit.forecast.choice import AUTO
from sweeps.fit.forms.catalogue import FORMS, LOSS_FORMS
from sweeps.fit.law import fit_both
from sweeps.fit.minima.form import Minima
from sweeps.fit.options import FitOptions
from sweeps.fit.result import Law
from sweeps.fit.rows.y_axis import YAxis, axis_of
from sweeps.fit.weightings import by_weighting, weightings_text

HELP = """\
Fit a scaling law to a table of runs, and say which of its coefficients the runs determine.

  kinescale fit table=runs.csv 'flops=[1e22,1e23]' out=law.json
  kinescale fit table=other.csv columns.params=N columns.loss=val flops=[1e19,1e20] level=.95
  kinescale fit table=curves.csv form=multi_power_tied predict=other_schedule.csv
  kinescale fit table=wandb:lab/ladder params=model.params tokens=train/tokens loss=val/loss

  table=FILE.csv     one row a run, with a header; or .jsonl (an object a line), .json (an array of
                     objects), .parquet, or wandb:entity/project (a row a run: its config and
                     summary); required
  out=FILE.json      where the law goes; only printed when absent
  form=auto          one of the forms below (default: its study's). auto chooses a form of (params,
                     tokens) by BIC and by how it foresaw the budgets so far; the loss is the
                     median of what it and the nearest budgets say (docs/fit.md)
  columns.X=COLUMN   the table's column for X, when it is not called so (params= tokens= loss= too)
  flops=[...]        compute at which N*, D* and the loss are wanted (default: the table's budgets
                     and the next one of their ladder)
  sizes=[...]        parameter counts that can be built: the frontier recommends the best of them
  fixed.X=VALUE      a coefficient that keeps its value
  plot=FILE.svg      a picture of a law of (params, tokens): valleys, minima, frontier and its band
  bands=FILE.csv     its frontier over compute with intervals, and tokens per parameter
  against.X=VALUE    published coefficients of the form: a likelihood ratio against them
  predict=FILE.csv   rows to predict with the law; errors are told where they hold the target
  y_axis.weighting=W of the loss over noise levels: uniform, trained (as often as training drew
                     them) or elbo, t / (1 - t); default: the study's, else the loss as it stands
  y_axis.window=[..] only times from..to count, as [.25,.75]; needs losses by stratum (loss_t1 ...)
  weightings=FILE    what exponent, coefficients and noise become under each weighting, as JSON
  level=.9           of every interval
  resamples=1000     bootstrap refits
  seed=0             of the bootstrap: the same seed gives the same file
  delta=1e-3         of the Huber loss of log residuals (inf: least squares)
  residual=log       or linear: of the target itself
  mean=false         true minimises the mean over runs and not the sum
  held_out=1         how many of the largest budgets the held-out test leaves out and predicts
  within=            of each budget's best: fit only runs at most so far above it (0.02: 2 %)
  one_sided=false    true counts rows above the law a ninth: for runs that are not all well tuned
  drop_highest=0     exclude so many rows of highest loss
  noise=             of a repeat, in the loss's unit (form=minima; default: loss_noise)

A study's own runs.csv is fitted as the study fits it: what is not given here (form, level,
resamples, columns) is read from study.yaml, study.json or law.json beside it, and told in a line.

Columns used when present: name, flops (training FLOPs; 6 N D when absent), budget (nominal FLOPs;
otherwise grouped by flops), loss_noise (standard deviation of a repeat), cluster (seeds of one
point, or checkpoints of one run: resampled together), excluded (true: left out, and listed with its
reason).

Example, a table with everything needed:
  params,tokens,loss
  37000,1.3e6,.882
  136000,3.6e5,.808
"""


def _forms() -> str:
    """Return every form of the catalogue, with the columns it needs."""
    every = [*FORMS.values(), Minima()]
    forms = [f"  {f.name:<20}{', '.join(f.columns)}\n      {f.equation}" for f in every]
    return "Forms (and the columns they need):\n" + "\n".join(forms)


def numbers(text: str) -> list[float]:
    """Return the numbers of `[1e13,4e13]` or of a single `1e13`."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [float(part) for part in inner.split(",") if part.strip()]


def boolean(text: str) -> bool:
    """Return true or false.

    Raises:
        ValueError: it is neither.
    """
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"{text}: must be true or false.")
    return words[text.lower()]


# Options of a fit and how their text is read.
READERS: dict[str, Callable[[str], Any]] = {
    "flops": numbers,
    "level": float,
    "resamples": lambda text: int(float(text)),
    "seed": int,
    "delta": float,
    "residual": str,
    "mean": boolean,
    "one_sided": boolean,
    "sizes": numbers,
    "noise": float,
    "within": float,
    "held_out": int,
}
# Options of several entries, given as name.key=value.
GROUPS: dict[str, Callable[[str], Any]] = {
    "columns": str, "fixed": float, "against": float, "y_axis": str,
}  # fmt: skip
COLUMNS = ("params", "tokens", "loss")  # whose names may be given without `columns.`
KEYS = (
    "table",
    "out",
    "form",
    *COLUMNS,
    *READERS,
    "drop_highest",
    "predict",
    "plot",
    "bands",
    "weightings",
)


@dataclass(frozen=True)
class Command:
    """Hold what the command line asks for, as HELP describes it."""

    table: str
    out: str
    form: str
    predict: str
    plot: str
    bands: str
    published: dict[str, float]
    columns: dict[str, str]  # ours -> the table's
    drop_highest: int
    options: FitOptions
    y_axis: YAxis | None  # None takes the loss as it stands
    weightings: str
    said: str  # what was taken from the study that the table belongs to


def parse(arguments: Sequence[str]) -> Command:
    """Return what `key=value` arguments ask for.

    Raises:
        ValueError: an unknown key, a repeated key, or a value that cannot be.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        group, _, entry = key.partition(".")
        reader = GROUPS.get(group) if entry else _reader(key)
        if not equals or reader is None:
            keys = ", ".join([*KEYS, *(f"{name}.NAME" for name in GROUPS)])
            near = guess(key, KEYS) if equals else ""
            raise ValueError(
                f"{argument}: must be key=value with a known key. {near}Allowed: {keys}."
            )
        if key in given:
            raise ValueError(f"{argument}: {key} is given twice. Give it once.")
        try:
            given[key] = reader(text)
        except ValueError:
            raise ValueError(f"{argument}: cannot be read as a number. See --help.") from None
    if "table" not in given:
        raise ValueError("table=: is required. Give table=FILE.csv, or see --help.")
    given |= {f"columns.{name}": given[name] for name in COLUMNS if name in given}
    study = beside(Path(given["table"]))
    groups = {group: found for group in GROUPS if (found := _entries(given, group))}
    taken = study.taken(given | groups)
    given |= taken | groups
    chosen = {key: given[key] for key in READERS if key in given}
    return Command(
        table=given["table"],
        out=given.get("out", ""),
        form=given.get("form", AUTO),
        predict=given.get("predict", ""),
        plot=given.get("plot", ""),
        bands=given.get("bands", ""),
        published=given.get("against", {}),
        columns=given.get("columns", {}),
        drop_highest=given.get("drop_highest", 0),
        y_axis=axis_of(given["y_axis"]) if "y_axis" in given else None,
        weightings=given.get("weightings", ""),
        options=FitOptions(fixed=given.get("fixed", {}), **chosen),
        said=study.said(taken),
    )


def _reader(key: str) -> Callable[[str], Any] | None:
    """Return what reads the text of a key without entries; None where there is no such key."""
    if key == "drop_highest":
        return int
    return READERS.get(key, str) if key in KEYS else None


def _entries(given: dict[str, Any], group: str) -> dict[str, Any]:
    """Return the entries of a group by their own names."""
    prefix = f"{group}."
    return {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}


@command(HELP, also=_forms, prints_only=True)
def main(arguments: list[str]) -> int:
    """Fit, write and print."""
    asked = parse(arguments)
    with doing(f"fitting {asked.table}, {asked.options.resamples} resamples"):
        found, law = fit_both(
            asked.table,
            asked.form,
            asked.options,
            columns=asked.columns,
            drop_highest=asked.drop_highest,
            predict=asked.predict or None,
            published=asked.published,
            y_axis=asked.y_axis,
        )
    written = _write(asked, found, law)
    said = [asked.said] * bool(asked.said)
    print("\n".join([*said, describe(found)]))  # after the files: a reader may leave
    if asked.weightings:
        rows = by_weighting(asked.table, asked.form, asked.options, asked.columns)
        if not rows:
            raise ValueError(
                f"weightings={asked.weightings}: {asked.table} keeps no loss by stratum of t "
                "(loss_t1 and so on), so the law has one weighting. Leave it out."
            )
        write_json(Path(asked.weightings), rows)
        written.append(asked.weightings)
        print(f"\n{weightings_text(rows)}")
    if written:
        print(f"\nWritten to {', '.join(written)}")
    return 0


def _write(asked: Command, found: dict[str, Any], law: Law | None) -> list[str]:
    """Write the files that are asked for and return their names."""
    wanted: dict[str, Callable[[Law], str]] = {asked.plot: Law.plot, asked.bands: bands_text}
    wanted.pop("", None)
    if wanted and law is None:
        raise ValueError(
            f"plot=, bands=: form={asked.form} has no frontier over params and tokens. Leave them "
            f"out, or use one of {', '.join(LOSS_FORMS)}."
        )
    for path in (asked.out, *wanted):
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    if asked.out:
        write_json(Path(asked.out), found)
    for path, text_of in wanted.items():
        assert law is not None
        write_text(Path(path), text_of(law))
    return [path for path in (asked.out, *wanted) if path]


if __name__ == "__main__":
    main.run()
