"""Forecasts of real isoFLOP tables: every budget of the upper half foreseen from those below.

Each method is fitted to the m smallest budgets and asked for the best loss of every larger one up
to 17 times as large; m runs from half the budgets to all but one. `python -m benchmarks.fit
forecast` prints the table, `coverage_of_forecasts` judges the intervals on laws that are known.
"""

import csv
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks import fit_data
from sweeps.fit.forecast.choice import choose, forecaster_of
from sweeps.fit.forecast.frontier import foreseen
from sweeps.fit.forecast.rolling import rolling_origin
from sweeps.fit.forms.base import Array
from sweeps.fit.forms.catalogue import LOSS_FORMS, form_of
from sweeps.fit.law import fit_law
from sweeps.fit.minima.frontier import FrontierPoint, frontier_draws, frontier_point, six_n
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.solve import fit_runs
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import (
    Run,
    clusters_of,
    group_budgets,
    interpolated_flops_per_token,
)
from sweeps.fit.trust.bootstrap import bootstrap_fit

FURTHEST = 17.0
Loss = Callable[[Array, Array], Array]
Table = Callable[[Loss, float, int, int], tuple[list[Run], list[float]]]


def isoflop_tables() -> Iterator[tuple[str, list[Run]]]:
    """Yield the name and runs of each real isoFLOP table."""
    for path in sorted((fit_data.REFERENCE / "forecast" / "isoflop").glob("*.csv")):
        with path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if r.get("excluded", "") != "True"]
        names = ("params", "tokens", "budget")
        yield (
            path.stem.removeprefix("iso_"),
            [
                Run(
                    "",
                    *(float(r[n]) for n in names[:4]),
                    float(r["loss"]),
                    budget=float(r["budget"]),
                )
                for r in rows
            ],
        )
    for reference, tables in fit_data.porian():
        name = "porian " + " ".join(reference[k] for k in ("hparams", "warmup", "decay", "val"))
        yield (
            name,
            [
                Run("", float(n), c / (6 * float(n)), c, float(y), budget=c)
                for c, params, losses in tables
                for n, y in zip(params, losses, strict=True)
            ],
        )


def forecast_errors(runs: Sequence[Run]) -> Iterator[tuple[str, float, float, bool | None]]:
    """Yield (method, error, times beyond, inside) of each forecast of the upper budgets.

    `inside` is told of the default's forecasts: whether its 90 % interval holds the best loss.
    """
    budgets = group_budgets(runs)
    cost = interpolated_flops_per_token(runs)
    options = FitOptions(resamples=300)
    whole = forecaster_of(runs, budgets, options)
    assert whole is not None
    for record in rolling_origin(runs, budgets, whole.ladder, cost, options, LOSS_FORMS):
        for origin, target, error in record.errors:
            if target <= FURTHEST * origin:
                yield record.method, float(np.expm1(error)), target / origin, None
    for count in range((len(budgets) + 1) // 2, len(budgets)):
        known = [runs[int(i)] for _, rows in budgets[:count] for i in rows]
        ahead = [(c, rows) for c, rows in budgets[count:] if c / budgets[count - 1][0] <= FURTHEST]
        asked = FitOptions(resamples=100, flops=[c for c, _ in ahead])
        for (compute, rows), point in zip(
            ahead, fit_law(known, options=asked).frontier, strict=True
        ):
            best = min(runs[int(i)].loss for i in rows)
            low, high = point.intervals["loss"]
            beyond = compute / budgets[count - 1][0]
            yield "the default", point.loss / best - 1, beyond, low <= best <= high


def planted(law: Loss, noise: float, budgets: int, seed: int) -> tuple[list[Run], list[float]]:
    """Return an isoFLOP table of a known law with log-normal noise, and targets beyond it."""
    rng = np.random.default_rng(seed)
    ladder = np.geomspace(1e18, 1e18 * 3.0 ** (budgets - 1), budgets)
    runs = []
    for flops in ladder:
        best = _best_size(law, flops)
        for params in best * 1.15 * np.geomspace(0.25, 4, 7):
            tokens = flops / 6 / params
            loss = law(params, tokens) * np.exp(noise * rng.standard_normal())
            runs.append(Run("", float(params), float(tokens), float(flops), float(loss)))
    return runs, [float(ladder[-1] * times) for times in (3, 9)]


def scattered(law: Loss, noise: float, budgets: int, seed: int) -> tuple[list[Run], list[float]]:
    """Return runs of a known law that share no compute, twelve for each budget of `planted`."""
    rng = np.random.default_rng(seed)
    runs = []
    for flops in np.sort(1e18 * 3.0 ** rng.uniform(0, budgets - 1, 12 * budgets)):
        params = _best_size(law, flops) * 1.15 * np.exp(rng.uniform(-1, 1) * np.log(4))
        tokens = flops / 6 / params
        loss = law(np.array(params), np.array(tokens)) * np.exp(noise * rng.standard_normal())
        runs.append(Run("", float(params), float(tokens), float(flops), float(loss)))
    return runs, [float(runs[-1].flops * times) for times in (3, 9)]


def _best_size(law: Loss, flops: float) -> float:
    sizes = np.geomspace(1e6, 1e13, 6000)
    return float(sizes[np.argmin(law(sizes, flops / 6 / sizes))])


def additive(params: Array, tokens: Array) -> Array:
    """Chinchilla's form, which is among the forms."""
    return 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28


def fading(params: Array, tokens: Array) -> Array:
    """Chinchilla's form made worse by a warm-up that large budgets outgrow: no form holds it."""
    return additive(params, tokens) + 0.25 * (6 * params * tokens / 1e18) ** -0.4


def least_losses(runs: Sequence[Run], options: FitOptions) -> Iterator[FrontierPoint]:
    """Yield the frontier of `fit_law` at `options.flops`, without all else that a law holds.

    The same fits and draws: the held-out test, profiles' rows and sensitivity cost more than half.
    """
    choice = choose(runs, group_budgets(runs), six_n, options)
    fit, _ = certify(fit_runs(form_of(choice.form), runs, options), options.level)
    boot = bootstrap_fit(fit, clusters_of(runs), options.resamples, options.level, options.seed)
    largest = max(run.flops for run in runs)
    for flops in options.flops:
        draws = frontier_draws(fit, boot, flops, six_n)
        point = frontier_point(fit, boot, flops, six_n, largest, draws=draws)
        yield foreseen(point, choice, draws, options.level, six_n)


def coverage_of_forecasts(
    law: Loss, replicates: int = 200, table: Table = planted
) -> tuple[float, float]:
    """Return how often the default's 90 % intervals hold the true least loss, and the mean error.

    Ladders of 5 to 9 budgets of 7 sizes (or runs `scattered` as wide), noise of 0.2 or 0.5 %,
    targets 3 and 9 times beyond.
    """
    inside, errors = [], []
    for seed in range(replicates):
        runs, targets = table(law, (0.002, 0.005)[seed % 2], (5, 7, 9)[seed % 3], seed)
        with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
            found = list(least_losses(runs, FitOptions(resamples=100, flops=targets)))
        for point in found:
            size = _best_size(law, point.flops)
            truth = float(law(np.array(size), np.array(point.flops / 6 / size)))
            low, high = point.intervals["loss"]
            inside.append(low <= truth <= high)
            errors.append(abs(point.loss / truth - 1))
    return float(np.mean(inside)), float(np.mean(errors))
