"""Say in plain words when a law of (params, tokens) is not one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sweeps.fit.forecast.agreement import warn_agreement
from sweeps.fit.odd_runs import warn_runs, warn_units
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.rows.runs import clusters_of, sizes_by_lengths
from sweeps.fit.trust.checkpoints import warn_checkpoints
from sweeps.fit.trust.identified import warn_fit, warn_identified
from sweeps.fit.trust.odd_rows import warn_rows
from sweeps.fit.trust.structure import warn_structure
from sweeps.fit.words import counted

if TYPE_CHECKING:
    from sweeps.fit.result import Law

FEW_CLUSTERS = 10  # below which a bootstrap over clusters covers too little (Cameron et al. 2008)


def warn(law: "Law") -> list[str]:
    """Return every warning about a law, most serious first, each a sentence with its figures."""
    units = list(warn_units(law))
    return [
        *units,
        *warn_fit(law.fit, law.bootstrap),
        *warn_identified(law.identified),
        *_warn_pinned(law.fit),
        *(warn_agreement(law.exponents) if law.choice else ()),
        *_warn_runs(law),
        *([] if units else _warn_structure(law)),  # wrong units make structure enough
        *_warn_reach(law),
    ]


def _warn_pinned(fit: Fit) -> Iterator[str]:
    """Yield that a held floor takes its doubt out of every other interval."""
    for parameter in fit.form.parameters:
        if parameter.kind == "floor" and parameter.name in fit.fixed:
            name = parameter.name
            yield (
                f"{name} is held at {fit.coefficients[name]:.4g}: the floor is what runs tell "
                "least, and intervals of exponents and forecasts are narrower for it. Leave out "
                f"fixed.{name} to see how much of that is known."
            )


def _warn_runs(law: "Law") -> Iterator[str]:
    yield from warn_rows(law.fit, law.excluded, [r.name for r in law.runs])
    yield from warn_runs(law)
    clusters = len(set(clusters_of(law.runs)))
    if clusters < min(FEW_CLUSTERS, len(law.runs)):
        yield (
            f"The {len(law.runs)} runs are {counted(clusters, 'cluster')}: fewer than "
            f"{FEW_CLUSTERS} are too few to redraw, and intervals come out too narrow."
        )
    if (budgets := len(law.budgets)) < 3:
        grid = sizes_by_lengths(law.runs)
        what = f" (a grid of {grid[0]} sizes and {grid[1]} lengths)" if grid else ""
        form = counted(budgets, "compute budget") if budgets else "no compute budgets"
        yield (
            f"The runs form {form}{what}: a frontier through isoFLOP minima needs at least 3, this "
            "one rests on the form alone."
        )
    scatter, noise = law.scatter, law.noise_floor
    if noise is not None and scatter > 2 * noise:
        yield (
            f"Residuals scatter by {100 * scatter:.2g} %, {scatter / noise:.1f} times the measured "
            f"noise of {100 * noise:.2g} %: the form or the recipe misses something."
        )


def _warn_structure(law: "Law") -> Iterator[str]:
    """Yield how the residuals differ from noise; those of checkpoints of one run are not many.

    Where the form was chosen, those of Chinchilla's: a freer form takes up what units and recipes
    leave.
    """
    fit = law.fit
    if law.choice and (plain := law.choice.candidates.get("chinchilla")):
        fit = plain.fit
    clusters = clusters_of(law.runs)
    checkpoints = [] if law.budgets else list(warn_checkpoints(fit, clusters))
    if checkpoints:
        yield from checkpoints
        clusters = [run.params for run in law.runs]
    compute = fit.columns["flops"].copy()
    for flops, rows in law.budgets:
        compute[rows] = flops
    axes = {"size": fit.columns["params"], "length": fit.columns["tokens"]}
    yield from warn_structure(
        fit, {"budget" if law.budgets else "compute": compute} | axes, clusters
    )


def _warn_reach(law: "Law") -> Iterator[str]:
    refused = [m for m in law.isoflop if not m.interior]
    for minimum in refused:
        yield f"The isoFLOP minimum at {minimum.budget:.3g} FLOPs is refused: {minimum.reason}."
    tested = law.held_out.extrapolation_factor if law.held_out else 1.0
    for point in law.frontier:
        if not point.interior:
            yield f"The frontier at {point.flops:.3g} FLOPs has no interior minimum."
        if point.extrapolation_factor > 1.01 * tested:
            yield (
                f"The frontier at {point.flops:.3g} FLOPs lies {point.extrapolation_factor:.3g}x "
                "beyond the largest fitted run, "
                f"{point.extrapolation_factor / tested:.2g} times further than the held-out test "
                f"reached ({tested:.3g}x)."
            )
    if law.held_out and not law.held_out.inside:
        yield (
            f"The held-out budget {law.held_out.budget:.3g} missed its interval: relative error "
            f"{100 * law.held_out.relative_error:+.2f} %."
        )
    if not law.held_out:
        yield f"No held-out test: {law.held_out_reason}."
    bias = law.exponents.get("approach_2_bias")
    if bias and abs(bias["params_factor"] - 1) > 0.1:
        yield (
            f"Approach 2 is biased on this grid: were the fitted law true, its parabolas would put "
            f"N* at {bias['params_factor']:.2f} times the law's."
        )
