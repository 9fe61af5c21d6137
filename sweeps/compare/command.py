"""The command line of a comparison: its options, what is compared how, and the printed table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import write_json
from data.words import counted
from sweeps.compare.multiplier import NOISE_FACTOR, Comparison, compare_sides
from sweeps.compare.recipes import SHARED, Recipe, compare_recipes, recipes_of
from sweeps.compare.sides import (
    Side,
    beside_of,
    can_make_law,
    located,
    name_of,
    names_apart,
    read_run_side,
    read_table_side,
    usable_runs,
)
from sweeps.fit.forecast.choice import AUTO
from sweeps.fit.forecast.rolling import NEARBY
from sweeps.fit.forms.catalogue import LOSS_FORMS
from sweeps.fit.options import DEFAULTS, FitOptions
from sweeps.fit.rows.read import Source
from sweeps.study.validation import Validated, agreement, validated

READERS: dict[str, Any] = {
    "level": float, "resamples": int, "seed": int, "within": float, "method": str, "form": str,
    "validation": str, "reference": str, "out": str, "svg": str,
}  # fmt: skip
WORDS = ("method", "form", "validation", "reference")  # which are no options of a fit
SAME, DIFFERS = "same", "differs"


def compare(
    a: Source,
    b: Source,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    method: str | None = None,
    form: str = "",
    validation: str = SAME,
) -> tuple[Comparison, Side, Side]:
    """Compare two studies, tables or runs; see `sweeps.compare.__main__`.

    a, b: folders or tables as paths, or tables as `read_rows` takes them. columns, form: of both
    tables; empty leaves them to each table's study.

    Raises:
        ValueError: they cannot be read, are not of one kind, or were validated on other data.
    """
    if method not in (None, "law", "frontier", SHARED):
        raise ValueError(f"method={method}: is not known. Use law, frontier or {SHARED}.")
    if validation not in (SAME, DIFFERS):
        raise ValueError(f"validation={validation}: is not known. Use {SAME} or {DIFFERS}.")
    if options.within is not None and method != SHARED:
        raise ValueError(
            f"within={options.within:g}: is for recipes that share a law. Use method={SHARED}, or "
            "leave it out."
        )
    sources = [located(a), located(b)]
    if len({_is_run(source) for source in sources}) > 1:
        raise ValueError(f"{a} and {b}: one is a run, the other a table. Give two of a kind.")
    known = agreement(*(validated(s) if isinstance(s, Path) else Validated() for s in sources))
    if known.differs and validation == SAME:
        raise ValueError(
            f"validation={SAME}: {a} and {b} were validated on other data: "
            f"{'; '.join(known.differs)}. Such losses do not compare; "
            f"validation={DIFFERS} compares them nevertheless."
        )
    if method == SHARED and not any(map(_is_run, sources)):
        first, second = _as_recipes(sources, columns or {})
        found, one, other = compare_recipes(first, second, options, form)
    else:
        one, other = _sides(sources, columns or {}, method, form, options)
        found = compare_sides(one, other, options.level)
        found = replace(found, notes=[*found.notes, *_told_apart(one, other)])
    found = replace(found, validation=known.sentence())
    if known.differs:
        found = replace(found, verdict=f"{found.verdict} {known.sentence()}")
    return found, one, other


def _told_apart(one: Side, other: Side) -> list[str]:
    """Say that two laws differ in what tells them, whose errors are then no one's own."""
    if one.told_by == other.told_by:
        return []
    tellers = [side.told_by.replace(NEARBY, "the nearest budgets") for side in (one, other)]
    return [
        f"{one.name} is told by {tellers[0]}, {other.name} by {tellers[1]}: where neither is exact "
        "part of the multiplier is their difference. form= puts both on one."
    ]


def _is_run(source: Source) -> bool:
    return isinstance(source, Path) and source.is_dir()


def _sides(
    sources: Sequence[Source],
    columns: Mapping[str, str],
    method: str | None,
    form: str,
    options: FitOptions,
) -> list[Side]:
    if _is_run(sources[0]):
        draws, seed = options.resamples, options.seed
        folders = [source for source in sources if isinstance(source, Path)]
        names = names_apart([folder.name for folder in folders])
        pairs = enumerate(zip(folders, names, strict=True))
        return [read_run_side(folder, draws, seed + i, name) for i, (folder, name) in pairs]
    return _table_sides(sources, columns, method, form, options)


def _table_sides(
    sources: Sequence[Source],
    columns: Mapping[str, str],
    method: str | None,
    form: str,
    options: FitOptions,
) -> list[Side]:
    """Return both tables' frontiers, each by its own study's columns and form, or its best one."""
    studies = [beside_of(source) for source in sources]
    mappings = [{**study.columns, **columns} for study in studies]
    able = all(can_make_law(s, m) for s, m in zip(sources, mappings, strict=True))
    own = [str(study.values.get("form", AUTO)) for study in studies]
    forms = [form or (name if name in LOSS_FORMS else AUTO) for name in own]
    names = names_apart([name_of(source) for source in sources])
    return [
        read_table_side(
            source,
            mappings[i],
            method or ("law" if able else "frontier"),
            replace(options, seed=options.seed + i),
            forms[i],
            names[i],
        )
        for i, source in enumerate(sources)
    ]


def _as_recipes(sources: Sequence[Source], columns: Mapping[str, str]) -> list[Recipe]:
    """Return two tables as two recipes of one law."""
    names = names_apart([name_of(source) for source in sources])
    found = []
    for source, name in zip(sources, names, strict=True):
        runs, notes = usable_runs(source, {**beside_of(source).columns, **columns})
        found.append(Recipe(name, runs, notes))
    return found


def compare_in(
    source: Source,
    options: FitOptions = DEFAULTS,
    *,
    columns: Mapping[str, str] | None = None,
    form: str = "",
    reference: str = "",
) -> list[tuple[Comparison, Side, Side]]:
    """Compare each recipe of one table, by its column `recipe`, with the `reference`.

    reference: empty takes the first of the table.

    Raises:
        ValueError: the table holds no recipes to compare, or no such reference.
    """
    recipes = recipes_of(source, {**beside_of(source).columns, **(columns or {})})
    names = [recipe.name for recipe in recipes]
    if reference and reference not in names:
        raise ValueError(f"reference={reference}: is not among the recipes {', '.join(names)}.")
    first = recipes.pop(names.index(reference) if reference else 0)
    return [compare_recipes(first, recipe, options, form) for recipe in recipes]


def run(argv: Sequence[str]) -> int:
    """Compare what a command line names, print, and write what it asks for.

    Raises:
        ValueError: an option or an input is wrong.
    """
    names, columns, given = _parse([a for a in argv if a != "--json"])
    out, svg = (given.pop(key, None) for key in ("out", "svg"))
    every = _compared(names, columns, given)
    results = [found.to_dict() for found, *_ in every]
    result = results[0] if len(names) == 2 else results
    texts = [describe(found, a, b) for found, a, b in every]
    text = json.dumps(result, indent=1) if "--json" in argv else "\n\n".join(texts)
    if svg and len(every) > 1:
        raise ValueError(
            f"svg={svg}: shows two recipes, and {names[0]} has {len(every) + 1}. Leave it out."
        )
    try:
        if out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(out), result)
        if svg:
            from sweeps.compare.figure import draw  # matplotlib takes longer than the comparison

            Path(svg).write_text(draw(*every[0]), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"out={out}, svg={svg}: cannot be written ({error.strerror}).") from None
    finally:
        print(text)  # after the files: a reader that leaves ends this process
    return 0


def _compared(
    names: Sequence[str], columns: Mapping[str, str], given: dict[str, Any]
) -> list[tuple[Comparison, Side, Side]]:
    """Return the comparison of two sides, or those of one table's recipes."""
    keys = ("method", "form", "validation") if len(names) == 2 else ("form", "reference")
    asked = {key: given.pop(key) for key in keys if key in given}
    if wrong := set(given) & set(WORDS):
        raise ValueError(
            f"{min(wrong)}={given[min(wrong)]}: is not for {len(names)} of A and B. See --help."
        )
    options = FitOptions(**(_of_all(names) | given))
    if len(names) == 1:
        return compare_in(located(names[0]), options, columns=columns, **asked)
    return [compare(names[0], names[1], options, columns=columns, **asked)]


def _of_all(names: Sequence[str]) -> dict[str, Any]:
    """Return level and resamples where all studies state the same."""
    first, *others = (beside_of(located(name)).values for name in names)
    shared = ("level", "resamples")
    return {k: first[k] for k in shared if k in first and all(first[k] == o.get(k) for o in others)}


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
    if not 1 <= len(names) <= 2:
        raise ValueError(
            f"A B={names}: must be two folders or tables, or one table with a column recipe. See "
            "--help."
        )
    return names, columns, given


def describe(found: Comparison, a: Side, b: Side) -> str:
    """Return the comparison as text for a terminal."""
    words = {
        "law": "frontiers L*(C) of a law of (params, tokens) each",
        "frontier": "a power of FLOPs through each budget's best run",
        "curve": "two single runs, along their curves",
        SHARED: "frontiers L*(C) of one law, fitted to the runs of both",
    }
    lines = [found.verdict, "", f"Compared: {words[found.method]}."]
    for label, side in (("A", a), ("B", b)):
        noise = "unknown" if side.noise is None else f"{100 * side.noise:.2g} %"
        lines.append(
            f"  {label}  {side.name}: {counted(side.runs, 'run')}, {side.low:.3g} to "
            f"{side.high:.3g} FLOPs, noise of a run {noise}"
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
