"""Which law a table gets when none is named, chosen without a look at what is held out.

Of the forms of (params, tokens) whose residuals show no structure that of least BIC on the fitted
rows is taken. What it says of a budget's least loss is one more member of the median by which the
nearest budgets (`nearby.py`) tell it. Where all residuals show structure BIC compares wrong forms:
the one that foresaw best is taken, and the nearest budgets alone tell the loss.

A member and no more, because the better of two in a few forecasts is better by luck: over real
tables a form that told the loss alone where it had foreseen it better erred more than the nearest
budgets, and so did their mean by past errors; a median needs no record to disregard a form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.fit.forecast.forecaster import MIN_BUDGETS, Forecaster
from sweeps.fit.forecast.ladder import NEAR, ladder_of
from sweeps.fit.forecast.origins import STARTS
from sweeps.fit.forecast.rolling import NEARBY, Record, in_order, joined, rolling_origin
from sweeps.fit.forecast.tenths import rolling_tenths
from sweeps.fit.forms.base import Array, FlopsPerToken, Rows
from sweeps.fit.forms.catalogue import LOSS_FORMS, form_of
from sweeps.fit.optimum.solve import Fit, fit_runs
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run, noise_floor

AUTO = "auto"  # the form that leaves the choice to this module
STRUCTURED = 0.05  # a p-value below says that residuals follow their budget
BOTH = "both"  # the form and the nearest budgets tell the least loss together
SPARE = 3  # runs beyond its coefficients that a form is compared by
NEGLIGIBLE = 6.0  # of BIC above the least: such a form is e^-3 as likely


@dataclass(frozen=True)
class Candidate:
    """Hold one form's fit, its BIC, and the p-value of structure in its residuals (None: unknown).

    BIC = 2 n log(mean |residual|) + P log n + 2 P (P + 1) / (n - P - 1): the residuals of runs have
    the heavy tails of a Laplace distribution, which is also what a small Huber delta minimises; the
    last term is that of AICc, for a dozen runs.
    """

    fit: Fit
    bic: float
    structure: float | None


@dataclass(frozen=True)
class Choice:
    """Hold what was chosen and why.

    form: of (params, tokens); by: what tells the least loss of a budget, `nearby`, `both` or that
    form; candidates: by form, the least BIC first; records: of every method; last: compute of the
    largest budget, or run; past: (origin, target, log error) of what tells the loss, `(F, 3)`;
    forecaster: of an isoFLOP table.
    """

    form: str
    by: str
    reason: str
    candidates: dict[str, Candidate]
    records: list[Record]
    last: float
    past: Array
    forecaster: Forecaster | None

    def weights(self) -> dict[str, float]:
        """Return the share of each form by its BIC; where no form fits, all alike."""
        bic = np.array([c.bic for c in self.candidates.values()])
        away = bic - bic.min()
        share = np.where(away > NEGLIGIBLE, 0.0, np.exp(-away / 2))
        if self.by == NEARBY:
            share = np.ones_like(away)
        return dict(zip(self.candidates, share / share.sum(), strict=True))

    def to_dict(self) -> dict[str, object]:
        """Return the entries of law.json: the choice, and the record of every method."""
        forms = {
            name: {"bic": c.bic, "parameters": c.fit.num_free, "structure_p": c.structure}
            for name, c in self.candidates.items()
        }
        return {
            "choice": {"loss_by": self.by, "reason": self.reason, "forms": forms},
            "rolling_origin": [record.to_dict() for record in self.records],
        }


def forecaster_of(
    runs: Sequence[Run], budgets: Sequence[tuple[float, Rows]], options: FitOptions
) -> Forecaster | None:
    """Return the forecaster of an isoFLOP table; None where too few budgets show their best size.

    Where the best run stands at an end of the sizes, a budget's least loss is not known.
    """
    if len(budgets) < MIN_BUDGETS:
        return None
    tables = [
        (c, np.array([runs[int(i)].params for i in g]), np.array([runs[int(i)].loss for i in g]))
        for c, g in budgets
    ]
    ladder = ladder_of(tables, noise_floor(runs) or 0.0)
    if ladder.interior.sum() < MIN_BUDGETS:
        return None
    return Forecaster(ladder, options.level, options.resamples, options.seed)


def choose(
    runs: Sequence[Run],
    budgets: Sequence[tuple[float, Rows]],
    cost: FlopsPerToken,
    options: FitOptions,
) -> Choice:
    """Choose the form, and what tells the least loss of a budget.

    Raises:
        ValueError: the runs are too few for any form.
    """
    fits = {name: fit for name in LOSS_FORMS if (fit := _fit(name, runs, options))}
    if not fits:  # too few to choose by: the first form, where it can be fitted at all
        fits = {LOSS_FORMS[0]: fit_runs(form_of(LOSS_FORMS[0]), runs, options)}
    found = {
        name: Candidate(fit, _bic(fit), _structure(fit, budgets)) for name, fit in fits.items()
    }
    found = dict(sorted(found.items(), key=lambda item: item[1].bic))
    forecaster = forecaster_of(runs, budgets, options)
    if forecaster is None:
        form = next(iter(found))
        reason = (
            f"fewer than {MIN_BUDGETS} budgets show their best size: the form of least BIC tells it"
        )
        records = rolling_tenths(runs, options, found)
        past = next(record.past for record in records if record.method == form)
        last = max(run.flops for run in runs)
        return Choice(form, form, reason, found, records, last, past, None)
    records = rolling_origin(runs, budgets, forecaster.ladder, cost, options, fits)
    known = {record.method: record for record in records}
    sound = [name for name, c in found.items() if (c.structure or 0.0) >= STRUCTURED]
    form = sound[0] if sound else min(found, key=lambda name: known[name].size)
    both = joined(known[form], forecaster.ladder)
    by, reason = _by(found[form].structure, known[form], known[NEARBY], both)
    if by == BOTH:
        records = in_order([*records, both])
    past = both.past if by == BOTH else forecaster.past
    last = float(forecaster.ladder.compute[-1])
    return Choice(form, by, reason, found, records, last, past, forecaster)


def _by(p: float | None, ours: Record, theirs: Record, both: Record) -> tuple[str, str]:
    """Return what tells the least loss, and why; the records are of form, budgets and both."""
    form = ours.method
    if p is None:
        return NEARBY, f"the budgets hold too few runs to tell whether {form} fits"
    if p < STRUCTURED:
        return NEARBY, (
            f"the residuals of every form follow the budget, also those of {form}, which foresaw "
            f"best (p = {p:.2g}): these forms are wrong for these runs"
        )
    if not ours.errors:
        return NEARBY, f"{form} cannot be fitted to fewer budgets"
    return BOTH, (
        f"the residuals of {form} show no structure (p = {p:.2g}); it foresaw the budgets so far "
        f"to {100 * ours.size:.2g} % for each factor e of compute, the nearest budgets to "
        f"{100 * theirs.size:.2g} %, the median of both to {100 * both.size:.2g} %"
    )


def _fit(name: str, runs: Sequence[Run], options: FitOptions) -> Fit | None:
    """Return a form's fit from few starts; None where these runs leave nothing to judge it by."""
    if len({(r.params, r.tokens) for r in runs}) < len(form_of(name).parameters) + SPARE:
        return None
    try:
        with np.errstate(all="ignore"):  # a form that does not suit may overflow on its way
            return fit_runs(form_of(name), runs, options, max_starts=STARTS)
    except ValueError:
        return None


def _bic(fit: Fit) -> float:
    count = len(fit.residuals)
    least = 1e-12  # exact data: all forms that hold it are alike but for their parameters
    mean = max(float(np.mean(np.abs(fit.residuals))), least)
    few = 2 * fit.num_free * (fit.num_free + 1) / max(count - fit.num_free - 1, 0.5)
    return float(2 * count * np.log(mean) + fit.num_free * np.log(count) + few)


def _structure(fit: Fit, budgets: Sequence[tuple[float, Rows]]) -> float | None:
    """Return the p-value of "residuals near the best sizes do not follow their budget".

    An F test of the budgets' mean residuals against the scatter within budgets, of the runs within
    5 % of their budget's best: where a frontier is read, a form must have no trend. The fit takes
    up some of the means, and no degree is taken off for that: the test errs for the form.
    """
    from scipy.special import fdtrc  # a tenth of a second that fits of one form do not need

    groups: list[Array] = []
    for _, rows in budgets:
        near = rows[fit.target[rows] <= fit.target[rows].min() * (1 + NEAR)]
        if len(near) > 1:
            groups.append(fit.residuals[near])
    count = sum(len(g) for g in groups)
    between, within = len(groups) - 1, count - len(groups)
    if between < 1 or within < 1:
        return None
    left = sum(float(np.sum((g - g.mean()) ** 2)) for g in groups) / within
    apart = sum(len(g) * float(g.mean()) ** 2 for g in groups) / between
    if left <= 0:
        return 1.0
    return float(fdtrc(between, within, apart / left))


def named(form: str) -> str:
    """Return the form's name after a check.

    Raises:
        ValueError: it is neither `auto` nor in the catalogue.
    """
    return form if form == AUTO else form_of(form).name
