"""Whether the rows identify the parameters of a law."""

from collections.abc import Iterator, Mapping

import numpy as np

from sweeps.fit.forms.base import Form, Interval
from sweeps.fit.forms.powers import SumOfPowers
from sweeps.fit.optimum.profile import Profile
from sweeps.fit.optimum.solve import Fit
from sweeps.fit.trust.bootstrap import Bootstrap, coefficient_intervals, least_values

Verdicts = dict[str, dict[str, bool | str | None]]


# An interval whose ends differ by more than this factor does not identify the coefficient.
# Amplitudes are losses at N = 1 and D = 1, many e-folds from any run, so their honest intervals are
# wide.
MAX_SPREAD = {"floor": 1.5, "amplitude": 30.0, "exponent": 2.0, "scale": 2.0}


MAX_CONDITION = 1e6  # published fits of two terms have 1e3 to 2e4, of four dependent ones 4e6


FLAT = 1e-12  # of the target: what is less is rounding


MIN_RANGE = 2.0  # over less than a doubling any smooth function is a power


def identified(fit: Fit, boot: Bootstrap, profiles: Mapping[str, Profile]) -> Verdicts:
    """Say for each coefficient whether these runs determine it, and if not why."""
    intervals = coefficient_intervals(fit, boot)
    verdicts: Verdicts = {}
    for parameter in fit.form.parameters:
        name = parameter.name
        if name in fit.fixed:
            verdicts[name] = {"ok": True, "reason": "fixed, not fitted"}
            continue
        reasons = list(_reasons(name, parameter.kind, intervals[name], profiles.get(name), fit))
        verdicts[name] = {"ok": not reasons, "reason": "; ".join(reasons) or None}
    return verdicts


def _reasons(
    name: str, kind: str, interval: Interval, profile: Profile | None, fit: Fit
) -> Iterator[str]:
    """Yield the reasons why coefficient `name` is not identified."""
    if is_flat(fit):
        yield f"all runs have one {fit.form.target}"
        return
    value, least = fit.coefficients[name], float(fit.target.min())
    for column in _columns_of(fit.form, name):
        count, needed = len(np.unique(fit.columns[column])), least_values(fit).get(column, 2)
        if count < needed:
            yield f"only {count} distinct values of {column}: {needed} are needed"
        span = float(fit.columns[column].max() / fit.columns[column].min())
        if count >= needed and span < MIN_RANGE:
            yield f"{column} spans only a factor {span:.3g}: a power needs {MIN_RANGE:g}"
    if name in fit.at_bound:
        yield "the fit ends on the wall of the search box"
    if kind == "floor" and value < 0.01 * least:
        yield f"{name} is near 0 (under 1 % of the least {fit.form.target} {least:.4g})"
    elif kind == "floor" and value >= least:
        yield f"{name} is not below the least {fit.form.target} {least:.4g}"
    if profile is not None and not profile.closed:
        end = "below" if not np.isfinite(profile.interval[0]) else "above"
        yield f"its likelihood profile stays open {end}"
    yield from _too_wide("its interval", interval, kind)
    if profile is not None and profile.closed:
        yield from _too_wide("its likelihood profile", profile.interval, kind)


def is_flat(fit: Fit) -> bool:
    """Tell whether all rows have one target.

    An exponent of 0 then fits them without an error, and rounding makes an interval of 1e-16.
    """
    return len(fit.target) > 1 and float(np.ptp(fit.target)) <= FLAT * float(fit.target.max())


def _too_wide(what: str, interval: Interval, kind: str) -> Iterator[str]:
    low, high = interval
    if not np.isfinite(low + high):
        yield "no bootstrap resample could be fitted"
    elif low * high <= 0:
        yield f"{what} [{low:.3g}, {high:.3g}] reaches 0"
    elif max(high / low, low / high) > MAX_SPREAD[kind]:
        factor = max(high / low, low / high)
        yield (
            f"{what} [{low:.3g}, {high:.3g}] spans a factor {factor:.2g}, more than "
            f"{MAX_SPREAD[kind]:g}"
        )


def _columns_of(form: Form, name: str) -> list[str]:
    """Return the columns whose terms hold coefficient `name`."""
    if not isinstance(form, SumOfPowers):
        return []
    return [
        column
        for term in form.terms
        for column, exponent in term.powers
        if name in (term.amplitude, exponent) and column in form.columns
    ]


def warn_identified(verdicts: Verdicts) -> Iterator[str]:
    """Yield one sentence for each coefficient that is not identified."""
    for name, verdict in verdicts.items():
        if not verdict["ok"]:
            yield f"{name} is not identified: {verdict['reason']}."


def warn_fit(fit: Fit, boot: Bootstrap) -> Iterator[str]:
    """Yield what is wrong with the optimum itself."""
    if not fit.converged:
        yield f"The fit has not converged: gradient norm {fit.gradient_norm:.2g}."
    if 2 * fit.starts_agreeing < fit.starts_tried:
        yield (
            f"Only {fit.starts_agreeing} of {fit.starts_tried} starts reach the best objective: "
            "the optimum may not be the only one."
        )
    if fit.condition > MAX_CONDITION:
        yield (
            f"The design is degenerate (condition number {fit.condition:.1g}): some coefficients "
            "only trade against each other, and the law should not be read term by term."
        )
    if boot.failed > 0.05:
        yield (
            f"{100 * boot.failed:.0f} % of the bootstrap resamples could not be fitted: the "
            "intervals rest on the others and are too narrow."
        )
