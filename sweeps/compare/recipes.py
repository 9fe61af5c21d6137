"""Two recipes by one law: what they share, and what one of them is worth in compute of the other.

The runs of both are fitted together (`sweeps.fit.optimum.shared`). Where a shared floor and shared
exponents hold them, the better one is worth one factor of compute at every loss. Where they do not
the multiplier is told at both ends of the losses that both reach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sweeps.compare.multiplier import Comparison, compare_sides
from sweeps.compare.sides import Side, by_nearest_budgets, runs_and_notes, side_of_law
from sweeps.fit.entries import residual_scatter
from sweeps.fit.forecast.choice import forecaster_of
from sweeps.fit.forms.base import Array, Columns
from sweeps.fit.forms.catalogue import CHINCHILLA, FORMS
from sweeps.fit.forms.powers import SumOfPowers
from sweeps.fit.forms.shared import RECIPE, Shared
from sweeps.fit.optimum.shared import APART, FLOORS, SCALED, SharedFits, fit_shared
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.check import check_columns, near_best
from sweeps.fit.rows.read import Source, no_such_column, title_of
from sweeps.fit.rows.runs import Run, clusters_of, columns_of, group_budgets, noise_floor
from sweeps.fit.rows.table import read_table
from sweeps.fit.trust.bootstrap import Bootstrap, bootstrap_fit
from sweeps.fit.trust.identified import warn_fit

SHARED = "shared"
SHARING_FORMS = ("chinchilla", "chinchilla_tied", "overtraining")
MOST_RECIPES = 24  # in one table: beyond that a column of something else was named


@dataclass(frozen=True)
class Recipe:
    """The runs of one recipe, and what to say of those that are left out."""

    name: str
    runs: list[Run]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Law:
    """The law of one recipe among those that share: its form and its rows."""

    form: SumOfPowers
    columns: Columns


def recipes_of(source: Source, mapping: Mapping[str, str]) -> list[Recipe]:
    """Return the recipes of a table by its column `recipe`, in the order of their first rows.

    A run has diverged by the measure of its own recipe.

    Raises:
        ValueError: there is no such column, or it holds one recipe, or too many.
    """
    table = read_table(source, CHINCHILLA, mapping)
    if RECIPE not in table.optional:
        why = "A single table is compared by its recipes. "
        columns = list(table.optional)
        raise ValueError(no_such_column(RECIPE, RECIPE, title_of(source), columns, why))
    words = table.optional[RECIPE]
    names = list(dict.fromkeys(word for word in words if word))
    if not 2 <= len(names) <= MOST_RECIPES:
        raise ValueError(
            f"columns.recipe={mapping.get(RECIPE, RECIPE)}: holds {len(names)} recipes in "
            f"{title_of(source)}, and 2 to {MOST_RECIPES} can be compared. Name the column that "
            "says how each run was trained."
        )
    found = []
    for name in names:
        theirs = table.without([None if word == name else "other" for word in words])
        runs, notes = runs_and_notes(replace(theirs, excluded=[], notes=[]))
        found.append(Recipe(name, runs, notes))
    return found


def compare_recipes(
    a: Recipe, b: Recipe, options: FitOptions, form: str = ""
) -> tuple[Comparison, Side, Side]:
    """Compare two recipes by a law that they share as far as their runs allow.

    form: one of `SHARING_FORMS`, chinchilla where empty.

    Raises:
        ValueError: the form shares nothing, or a recipe has too few runs.
    """
    single = _form(form)
    a, b = (_near(recipe, options.within) for recipe in (a, b))
    for recipe in (a, b):
        columns, loss = columns_of(recipe.runs)
        try:
            check_columns(single, columns, loss)
        except ValueError as error:
            raise ValueError(f"recipe={recipe.name}: {error}") from None
    found = _fit(single, (a, b), options)
    theirs = _sides(found, found.chosen, (a, b), options)
    compared = compare_sides(*theirs, options.level, decided=found.chosen != SCALED)
    free = compared
    if found.chosen != APART and compared.points:
        free = compare_sides(*_sides(found, APART, (a, b), options), options.level)
    free_of_form = _without_form(theirs, (a, b), options)
    tests = {"alike": found.alike, "constant": found.constant, "slopes": found.slopes}
    compared = replace(
        compared,
        method=SHARED,
        shared=found.chosen,
        tests={name: asdict(test) for name, test in tests.items()},
        notes=[*compared.notes, *_clustered((a, b))],
    )
    said = [_verdict(compared, free, found), *_contradicted(compared, free_of_form, options)]
    return replace(compared, verdict=" ".join(said)), *theirs


def _near(recipe: Recipe, within: float | None) -> Recipe:
    """Return a recipe with the runs near their budget's best, all of them where none is asked."""
    if within is None:
        return recipe
    budgets = group_budgets(recipe.runs)
    if not budgets:
        raise ValueError(
            f"within={within}: needs runs that share compute, and those of {recipe.name} form no "
            "budgets. Leave it out, or give a budget column."
        )
    kept, far = near_best(recipe.runs, budgets, within)
    said = f"{len(far)} of {len(recipe.runs)} runs lie beyond within={within:g} and are left out."
    return Recipe(recipe.name, kept, [*recipe.notes, said])


def _form(name: str) -> SumOfPowers:
    """Return a form whose coefficients recipes can share."""
    found = FORMS.get(name or SHARING_FORMS[0])
    if name not in ("", *SHARING_FORMS) or not isinstance(found, SumOfPowers):
        raise ValueError(
            f"form={name}: recipes cannot share it. Use one of {', '.join(SHARING_FORMS)}, or "
            "leave it out."
        )
    return found


def _fit(single: SumOfPowers, recipes: Sequence[Recipe], options: FitOptions) -> SharedFits:
    every = [run for recipe in recipes for run in recipe.runs]
    columns, loss = columns_of(every)
    columns[RECIPE] = _places(recipes)
    return fit_shared(single, tuple(r.name for r in recipes), columns, loss, options)


def _places(recipes: Sequence[Recipe]) -> Array:
    return np.repeat(np.arange(len(recipes)), [len(r.runs) for r in recipes]).astype(float)


def _bootstrap(fit: Fit, recipes: Sequence[Recipe], options: FitOptions) -> Bootstrap:
    """Refit redraws of the runs (clusters) of each recipe by itself."""
    places = _places(recipes).tolist()
    clusters = [c for recipe in recipes for c in clusters_of(recipe.runs)]
    return bootstrap_fit(
        fit, clusters, options.resamples, options.level, options.seed, strata=places
    )


def _sides(
    found: SharedFits, name: str, recipes: Sequence[Recipe], options: FitOptions
) -> tuple[Side, Side]:
    """Return both recipes' frontiers by one of the fits; their draws are of the same resamples."""
    fit = found.fits[name]
    assert isinstance(fit.form, Shared)
    boot = _bootstrap(fit, recipes, options)
    if not len(boot.theta):
        raise ValueError("table=: no resample of these runs could be fitted. Add runs.")
    theta = np.concatenate([fit.theta[None], boot.theta])
    places, sides = _places(recipes), []
    for place, recipe in enumerate(recipes):
        rows = places == place
        law = _Law(fit.form.single, {c: fit.columns[c][rows] for c in fit.form.single.columns})
        noise = max(noise_floor(recipe.runs) or 0.0, residual_scatter(fit))
        notes = [f"{recipe.name}: {note}" for note in recipe.notes]
        notes += [] if place else list(warn_fit(fit, boot))
        of_one = fit.form.of_recipe(theta, place)
        sides.append(side_of_law(recipe.name, law, of_one, recipe.runs, noise, notes))
    one, other = sides
    return one, other


def _without_form(
    sides: Sequence[Side], recipes: Sequence[Recipe], options: FitOptions
) -> Comparison | None:
    """Compare the least losses that the nearest budgets tell; None where runs form too few."""
    found = []
    for place, (side, recipe) in enumerate(zip(sides, recipes, strict=True)):
        known = forecaster_of(recipe.runs, group_budgets(recipe.runs), options)
        if known is None:
            return None
        seeded = replace(options, seed=options.seed + place)
        found.append(by_nearest_budgets(side, known.ladder.trusted(), seeded))
    return compare_sides(found[0], found[1], options.level, decided=True)


def _contradicted(found: Comparison, other: Comparison | None, options: FitOptions) -> list[str]:
    """Say where the law's multiplier is not that of the budgets nearest to a loss."""
    if other is None or not (found.points and other.points):
        return []
    losses = np.log([p["loss"] for p in other.points])
    nearer = options.within / 2 if options.within else 0.05
    for place in (0, -1):
        point = found.points[place]
        near = {
            key: float(np.exp(np.interp(np.log(point["loss"]), losses, np.log(values))))
            for key, values in (
                ("factor", [p["factor"] for p in other.points]),
                ("low", [p["interval"][0] for p in other.points]),
                ("high", [p["interval"][1] for p in other.points]),
            )
        }
        low, high = point["interval"]
        if near["low"] > high or near["high"] < low:
            return [
                f"But at loss {point['loss']:.4g} the nearest budgets, which assume no form, say "
                f"{near['factor']:.3g}x ({near['low']:.3g}x to {near['high']:.3g}x) and the law "
                f"{point['factor']:.3g}x: it does not hold over all of these runs. Believe the "
                f"former, or fit only runs nearer to their budget's best (within={nearer:g})."
            ]
    return []


def _clustered(recipes: Sequence[Recipe]) -> list[str]:
    """Say that the tests are too sure where rows share their noise."""
    rows = sum(len(r.runs) for r in recipes)
    clusters = sum(len(set(clusters_of(r.runs))) for r in recipes)
    if rows < 1.5 * clusters:
        return []
    return [
        f"The {rows} rows are {clusters} clusters: rows that share their noise make the p-values "
        "of the tests too small. The intervals redraw whole clusters."
    ]


def _verdict(found: Comparison, free: Comparison, fits: SharedFits) -> str:
    """Return the answer in words."""
    p = f"F test, p = {fits.constant.p:.2g}"
    if not found.points or (found.refusal and found.shared != SCALED):
        return found.verdict
    if found.shared == SCALED:
        return f"{_constant(found, p)} {_could_move(found, free)}"
    why = f"one floor and one pair of exponents do not hold both ({p})"
    if found.shared == FLOORS:
        why += f", their own floors do (p = {fits.slopes.p:.2g})"
        return f"Their floors differ: {why}. {_moving(found)}"
    return f"Their slopes differ: {why}. {_moving(found)}"


def _constant(found: Comparison, p: str) -> str:
    if found.refusal:
        return f"{found.verdict} One law with amplitudes of their own holds both ({p})."
    assert found.factor is not None
    assert found.interval is not None
    better, worse = (found.b, found.a) if found.factor > 1 else (found.a, found.b)
    ends = sorted(v if found.factor > 1 else 1 / v for v in (found.factor, *found.interval))
    return (
        f"{better} is worth {ends[1]:.3g}x the compute of {worse}, the same at all scales "
        f"({100 * found.level:g} % interval {ends[0]:.3g}x to {ends[2]:.3g}x): one floor and the "
        f"same exponents hold both ({p})."
    )


def _could_move(found: Comparison, free: Comparison) -> str:
    """Say how far the multiplier may still move, were nothing shared."""
    if free.trend_interval is None or not np.isfinite(free.trend_interval).all():
        return ""
    worse_first = found.points[0]["factor"] > 1
    low, high = sorted(v if worse_first else 1 / v for v in free.trend_interval)
    assert found.loss_range is not None
    return (
        f"That it moves is not ruled out: were nothing shared, by {low:.3g}x to {high:.3g}x from "
        f"loss {found.loss_range[1]:.4g} down to {found.loss_range[0]:.4g}."
    )


def _moving(found: Comparison) -> str:
    """Tell the multiplier at both ends of the common losses, and beyond them where it turns."""
    first, last = found.points[-1], found.points[0]
    moves = "grows" if last["factor"] > first["factor"] else "falls"
    ends = [
        f"{p['factor']:.3g}x ({p['interval'][0]:.3g}x to {p['interval'][1]:.3g}x) at loss "
        f"{p['loss']:.4g}, {p['flops_a']:.2g} FLOPs"
        for p in (first, last)
    ]
    turn = _turn(found.points)
    if turn is not None:
        moves = f"turns (at loss {turn['loss']:.4g} it is {turn['factor']:.3g}x):"
    return (
        f"What {found.b} is worth in compute of {found.a} {moves} from {ends[0]} to {ends[1]} "
        f"({100 * found.level:g} % intervals): do not extrapolate one number."
    )


def _turn(points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the point furthest beyond both ends, where its factor lies outside their intervals."""
    ends = [points[0]["interval"], points[-1]["interval"]]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    beyond = [p for p in points if not low <= p["factor"] <= high]
    return max(beyond, key=lambda p: max(low / p["factor"], p["factor"] / high), default=None)
