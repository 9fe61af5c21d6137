"""python -m sweeps.fit table=FILE.csv form=chinchilla out=FILE.json: one table in, one law out."""

import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps.fit.law import fit_table

HELP = """\
Fit a scaling law to a table of runs:  L(N, D) = E + A / N^alpha + B / D^beta

  python -m sweeps.fit table=runs/demo/runs.csv form=chinchilla out=law.json
  python -m sweeps.fit table=other.csv params=N tokens=D loss=val_loss flops=[1e19,1e20] level=.95

  table=FILE.csv     one row a run, with a header; required
  out=FILE.json      where the law goes; only printed when absent
  form=chinchilla    the form (the only one so far)
  params= tokens= loss=    the columns, when they are not called so
  flops=[...]        compute at which N*, D* and the loss are wanted (default: the table's budgets
                     and the next one of their ladder)
  level=.9           of every interval
  resamples=1000     bootstrap refits
  seed=0             of the bootstrap: the same seed gives the same file
  delta=1e-3         of the Huber loss of log residuals, whose sum is minimised

Columns used when present: name, flops (training FLOPs; 6 N D when absent), budget (nominal FLOPs;
otherwise grouped by flops), loss_noise (standard deviation of a repeat), cluster (the seeds of one
point are resampled together), excluded (true: left out, and listed with its reason).

Example, a table with everything needed:
  params,tokens,loss
  37000,1.3e6,.882
  136000,3.6e5,.808
"""


def numbers(text: str) -> list[float]:
    """Return the numbers of `[1e13,4e13]` or of a single `1e13`."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [float(part) for part in inner.split(",") if part.strip()]


READERS: dict[str, Callable[[str], Any]] = {
    "flops": numbers,
    "level": float,
    "resamples": lambda text: int(float(text)),
    "seed": int,
    "delta": float,
}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options of `key=value` arguments.

    Raises:
        ValueError: an unknown key, a repeated key, or a value that cannot be read.
    """
    allowed = ["table", "out", *inspect.signature(fit_table).parameters]
    allowed = [key for key in allowed if key not in ("path", "flops_of")]
    options: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key not in allowed:
            raise ValueError(f"{argument}: must be key=value with a key of {', '.join(allowed)}.")
        if key in options:
            raise ValueError(f"{argument}: {key} is given twice. Give it once.")
        try:
            options[key] = READERS.get(key, str)(text)
        except ValueError:
            raise ValueError(f"{argument}: cannot be read as a number. See --help.") from None
    if "table" not in options:
        raise ValueError("table=: is required. Give table=FILE.csv, or see --help.")
    return options


def write_json(path: Path, law: dict[str, Any]) -> None:
    """Write `law` to `path` whole or not at all: a temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(law, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _range(interval: Sequence[float | None] | None) -> str:
    if interval is None or None in interval:
        return "unknown"
    return f"{interval[0]:.4g} to {interval[1]:.4g}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def describe(law: dict[str, Any]) -> str:
    """Return the law as a table for a terminal."""
    percent = f"{100 * law['level']:g} %"
    starts = law["starts"]
    lines = [
        "L(N, D) = E + A / N^alpha + B / D^beta",
        f"{len(law['residuals'])} runs fitted, {len(law['excluded'])} excluded; objective "
        f"{law['objective']:.6g}; {starts['agreeing']} of {starts['tried']} starts agree",
        "",
        f"  {'coefficient':<12}{'value':>12}   {percent + ' interval':<26}identified",
    ]
    for name, value in law["coefficients"].items():
        verdict = law["identified"][name]
        said = "yes" if verdict["ok"] else f"NO: {verdict['reason']}"
        lines.append(
            f"  {name:<12}{_shown(value):>12}   {_range(law['intervals'][name]):<26}{said}"
        )
    lines += ["", f"  {'FLOPs':>10}{'N*':>12}{'D*':>12}{'loss':>10}   loss {percent} interval"]
    for row in law["frontier"]:
        lines.append(
            f"  {row['flops']:>10.3g}{_shown(row['params']):>12}{_shown(row['tokens']):>12}"
            f"{_shown(row['loss']):>10}   {_range(row['intervals']['loss'])}"
        )
    lines += ["", *_describe_isoflop(law), "", *_describe_held_out(law)]
    if law["warnings"]:
        lines += ["", "Warnings", *(f"  - {w}" for w in law["warnings"])]
    return "\n".join(lines)


def _describe_isoflop(law: dict[str, Any]) -> list[str]:
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


def _describe_held_out(law: dict[str, Any]) -> list[str]:
    held = law["held_out"]
    if held is None:
        return [f"Held-out test: none, {law['held_out_reason']}."]
    floor = held["noise_floor"]
    skill = f"{held['skill']:.2f}" if held["skill"] is not None else held["skill_reason"]
    return [
        f"Held-out budget {held['budget']:.3g} FLOPs, {held['extrapolation_factor']:.3g}x beyond "
        f"the runs fitted: predicted {held['predicted']:.5g}, actual {held['actual']:.5g}, error "
        f"{100 * held['relative_error']:+.2f} %",
        f"  {100 * law['level']:g} % interval {_range(held['interval'])} "
        f"({'inside' if held['inside'] else 'OUTSIDE'}); noise floor "
        f"{'unknown' if floor is None else f'{100 * floor:.2g} %'}; skill {skill}",
    ]


def main(arguments: Sequence[str]) -> int:
    """Fit, print and write; return 2 with the message on stderr for a user's mistake."""
    if not arguments or set(arguments) & {"--help", "-h", "help"}:
        print(HELP)
        return 0 if arguments else 2
    try:
        options = parse(arguments)
        out = options.pop("out", None)
        law = fit_table(options.pop("table"), **options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(law))
    if out:
        try:
            write_json(Path(out), law)
        except OSError as error:
            print(f"out={out}: cannot be written ({error}). Give another path.", file=sys.stderr)
            return 2
        print(f"\nWritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
