"""python -m sweeps.fit table=FILE.csv form=chinchilla out=FILE.json: one table in, one law out."""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data.files import write_json
from launch.pipe import end_with_reader
from sweeps.fit.describe import describe
from sweeps.fit.forms.catalogue import FORMS
from sweeps.fit.law import fit_table
from sweeps.fit.minima.by_splines import Minima

HELP = """\
Fit a scaling law to a table of runs, and say which of its coefficients the runs determine.

  python -m sweeps.fit table=runs/demo/runs.csv form=chinchilla out=law.json
  python -m sweeps.fit table=other.csv columns.params=N columns.loss=val flops=[1e19,1e20] level=.95
  python -m sweeps.fit table=curves.csv form=multi_power_tied predict=other_schedule.csv

  table=FILE.csv     one row a run, with a header (or .jsonl, an object a line); required
  out=FILE.json      where the law goes; only printed when absent
  form=chinchilla    one of the forms below
  columns.X=COLUMN   the table's column for X, when it is not called so (params= tokens= loss= too)
  flops=[...]        compute at which N*, D* and the loss are wanted (default: the table's budgets
                     and the next one of their ladder)
  sizes=[...]        parameter counts that can be built: the frontier recommends the best of them
  fixed.X=VALUE      a coefficient that keeps its value
  predict=FILE.csv   rows to predict with the law; errors are told where they hold the target
  level=.9           of every interval
  resamples=1000     bootstrap refits
  seed=0             of the bootstrap: the same seed gives the same file
  delta=1e-3         of the Huber loss of log residuals (inf: least squares)
  residual=log       or linear: of the target itself
  mean=false         true minimises the mean over runs and not the sum
  drop_highest=0     exclude so many rows of highest loss
  noise=             of a repeat, in the loss's unit (form=minima; default: loss_noise)

Columns used when present: name, flops (training FLOPs; 6 N D when absent), budget (nominal FLOPs;
otherwise grouped by flops), loss_noise (standard deviation of a repeat), cluster (seeds of one
point, or checkpoints of one run: resampled together), excluded (true: left out, and listed with its
reason).

Example, a table with everything needed:
  params,tokens,loss
  37000,1.3e6,.882
  136000,3.6e5,.808

Forms (and the columns they need):
"""


def help_text() -> str:
    """Return the help with every form of the catalogue."""
    every = [*FORMS.values(), Minima()]
    forms = [f"  {f.name:<20}{', '.join(f.columns)}\n      {f.equation}" for f in every]
    return HELP + "\n".join(forms)


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


READERS: dict[str, Callable[[str], Any]] = {
    "flops": numbers,
    "sizes": numbers,
    "level": float,
    "resamples": lambda text: int(float(text)),
    "seed": int,
    "delta": float,
    "mean": boolean,
    "noise": float,
    "drop_highest": int,
}
# Options of several entries, given as name.key=value.
GROUPS: dict[str, Callable[[str], Any]] = {"columns": str, "fixed": float}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options of `key=value` arguments.

    Raises:
        ValueError: an unknown key, a repeated key, or a value that cannot be read.
    """
    allowed = ["table", "out", *inspect.signature(fit_table).parameters]
    allowed = [key for key in allowed if key not in ("path", "flops_of", *GROUPS)]
    options: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        group, dot, entry = key.partition(".")
        grouped = bool(dot) and group in GROUPS and bool(entry)
        if not equals or not (grouped or key in allowed):
            keys = ", ".join([*allowed, *(f"{name}.NAME" for name in GROUPS)])
            raise ValueError(f"{argument}: must be key=value with a key of {keys}.")
        place = options.setdefault(group, {}) if grouped else options
        name = entry if grouped else key
        if name in place:
            raise ValueError(f"{argument}: {key} is given twice. Give it once.")
        try:
            place[name] = (GROUPS[group] if grouped else READERS.get(key, str))(text)
        except ValueError:
            raise ValueError(f"{argument}: cannot be read as a number. See --help.") from None
    if "table" not in options:
        raise ValueError("table=: is required. Give table=FILE.csv, or see --help.")
    return options


def main(arguments: Sequence[str]) -> int:
    """Fit, print and write; return 2 with the message on stderr for a user's mistake."""
    if not arguments or set(arguments) & {"--help", "-h", "help"}:
        print(help_text())
        return 0 if arguments else 2
    try:
        options = parse(arguments)
        out = options.pop("out", None)
        law = fit_table(options.pop("table"), **options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        if out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(out), law)
    except OSError as error:
        print(f"error: out={out}: cannot be written ({error}). Use another.", file=sys.stderr)
        return 2
    finally:
        print(describe(law))  # after the file: a reader that leaves ends this process
    if out:
        print(f"\nWritten to {out}")
    return 0


if __name__ == "__main__":
    end_with_reader()
    sys.exit(main(sys.argv[1:]))
