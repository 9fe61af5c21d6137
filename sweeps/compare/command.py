"""The command line of a comparison: its options, what is compared how, and the printed table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import write_json
from sweeps.compare.multiplier import NOISE_FACTOR, Comparison, compare_sides
from sweeps.compare.sides import (
    Side,
    can_make_law,
    locate,
    read_run_side,
    read_table_side,
    renamed_apart,
)
from sweeps.fit.beside import DEFAULT_FORM, beside
from sweeps.fit.forms.catalogue import LOSS_FORMS
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.study.validation import agreement, validated

READERS: dict[str, Any] = {
    "level": float, "resamples": int, "seed": int, "method": str, "form": str, "validation": str,
    "out": str, "svg": str,
}  # fmt: skip
SAME, DIFFERS = "same", "differs"


def compare(
    a: str,
    b: str,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    method: str | None = None,
    form: str = "",
    validation: str = SAME,
) -> tuple[Comparison, Side, Side]:
    """Compare two studies, tables or runs; see `sweeps.compare.__main__`.

    columns, form: of both tables; empty leaves them to each table's study.

    Raises:
        ValueError: they cannot be read, are not of one kind, or were validated on other data.
    """
    if method not in (None, "law", "frontier"):
        raise ValueError(f"method={method}: is not known. Use law or frontier.")
    if validation not in (SAME, DIFFERS):
        raise ValueError(f"validation={validation}: is not known. Use {SAME} or {DIFFERS}.")
    paths = [locate(a), locate(b)]
    if len({path.is_dir() for path in paths}) > 1:
        raise ValueError(f"{a} and {b}: one is a run, the other a table. Give two of a kind.")
    known = agreement(*(validated(path) for path in paths))
    if known.differs and validation == SAME:
        raise ValueError(
            f"validation={SAME}: {a} and {b} were validated on other data: "
            f"{'; '.join(known.differs)}. Such losses do not compare; "
            f"validation={DIFFERS} compares them nevertheless."
        )
    if paths[0].is_dir():
        draws, seed = options.resamples, options.seed
        sides = [read_run_side(path, draws, seed + i) for i, path in enumerate(paths)]
    else:
        sides = _table_sides(paths, dict(columns or {}), method, form, options)
    one, other = renamed_apart(*sides)
    found = replace(compare_sides(one, other, options.level), validation=known.sentence())
    if known.differs:
        found = replace(found, verdict=f"{found.verdict} {known.sentence()}")
    return found, one, other


def _table_sides(
    paths: Sequence[Path],
    columns: Mapping[str, str],
    method: str | None,
    form: str,
    options: FitOptions,
) -> list[Side]:
    """Return both tables' frontiers, each by its own study's columns and form."""
    studies = [beside(path) for path in paths]
    mappings = [{**study.columns, **columns} for study in studies]
    able = all(can_make_law(p, m) for p, m in zip(paths, mappings, strict=True))
    forms = [form or (s.form if s.form in LOSS_FORMS else DEFAULT_FORM) for s in studies]
    return [
        read_table_side(
            path,
            mappings[i],
            method or ("law" if able else "frontier"),
            replace(options, seed=options.seed + i),
            forms[i],
        )
        for i, path in enumerate(paths)
    ]


def run(argv: Sequence[str]) -> int:
    """Compare what a command line names, print, and write what it asks for.

    Raises:
        ValueError: an option or an input is wrong.
    """
    names, columns, given = _parse([a for a in argv if a != "--json"])
    out, svg = (given.pop(key, None) for key in ("out", "svg"))
    asked = {key: given.pop(key) for key in ("method", "form", "validation") if key in given}
    one, other = names
    options = FitOptions(**(_of_both(one, other) | given))
    found, a, b = compare(one, other, options, columns=columns, **asked)
    text = json.dumps(found.to_dict(), indent=1) if "--json" in argv else describe(found, a, b)
    try:
        if out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(out), found.to_dict())
        if svg:
            from sweeps.compare.figure import draw  # matplotlib takes longer than the comparison

            Path(svg).write_text(draw(found, a, b), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"out={out}, svg={svg}: cannot be written ({error.strerror}).") from None
    finally:
        print(text)  # after the files: a reader that leaves ends this process
    return 0


def _of_both(one: str, other: str) -> dict[str, Any]:
    """Return level and resamples where both studies state the same."""
    a, b = (beside(locate(text)).values for text in (one, other))
    return {k: a[k] for k in ("level", "resamples") if k in a and a[k] == b.get(k)}


def _parse(words: Sequence[str]) -> tuple[list[str], dict[str, str], dict[str, Any]]:
    names: list[str] = []
    columns: dict[str, str] = {}
    given: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if equals and key.startswith("columns.") and text:
            columns[key.removeprefix("columns.")] = text
        elif equals and key in READERS:
            try:
                given[key] = READERS[key](text)
            except ValueError:
                raise ValueError(f"{word}: cannot be read as a number. See --help.") from None
        elif word.startswith("--") or (equals and not Path(word).exists()):
            known = ", ".join([*READERS, "columns.NAME", "--json"])
            raise ValueError(f"{word}: is not an option. Known are {known}.")
        else:
            names.append(word)
    if len(names) != 2:
        raise ValueError(f"A B={names}: must be two folders or tables. See --help.")
    return names, columns, given


def describe(found: Comparison, a: Side, b: Side) -> str:
    """Return the comparison as text for a terminal."""
    words = {
        "law": "frontiers L*(C) of a law of (params, tokens) each",
        "frontier": "a power of FLOPs through each budget's best run",
        "curve": "two single runs, along their curves",
    }
    lines = [found.verdict, "", f"Compared: {words[found.method]}."]
    for label, side in (("A", a), ("B", b)):
        noise = "unknown" if side.noise is None else f"{100 * side.noise:.2g} %"
        lines.append(
            f"  {label}  {side.name}: {side.runs} runs, {side.low:.3g} to {side.high:.3g} FLOPs, "
            f"noise of a run {noise}"
        )
    if found.points:
        lines += ["", f"  {'loss':>10}{'FLOPs A':>12}{'FLOPs B':>12}{'A / B':>9}   interval"]
        for p in found.points:
            low, high = p["interval"]
            lines.append(
                f"  {p['loss']:>10.5g}{p['flops_a']:>12.3g}{p['flops_b']:>12.3g}"
                f"{p['factor']:>9.3g}   {low:.3g} to {high:.3g}"
            )
        low, high = found.interval or (float("nan"), float("nan"))
        lines.append(f"  geometric mean, {100 * found.level:g} % interval: {low:.3g} to {high:.3g}")
    if found.difference is not None:
        noise = "unknown" if found.noise is None else f"{100 * found.noise:.2g} %"
        worth = (
            f", worth {found.noise_as_compute:.3g}x compute at {NOISE_FACTOR:g} of them"
            if found.noise_as_compute
            else ""
        )
        lines.append(
            f"Loss of A over B at equal compute: {100 * found.difference:+.2g} %; noise of that "
            f"{noise}{worth}."
        )
    if found.method == "curve":
        lines.append(
            "One seed each: the interval holds only the noise of validation. Inside a run the "
            "learning rate has not decayed, so the better run's saving is rather understated."
        )
    if found.validation not in found.verdict:
        lines.append(found.validation)
    return "\n".join([*lines, *(["", "Notes"] if found.notes else []),
                      *(f"  - {note}" for note in found.notes)])  # fmt: skip
