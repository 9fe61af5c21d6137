"""Is the jump real: five tests of an ability that seems to come at once.

Each gives a number and a verdict in words. None is a proof: a test that cannot tell says so.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2, norm

from sweeps.emergence.dip import dip, dip_p
from sweeps.emergence.finding import LEVEL, Array, Finding, arrays, check_errors, check_rising
from sweeps.emergence.rise import fit_rise

_ALPHA = 1 - LEVEL
_NAN = float("nan")
_RISES = 3.0  # standard errors by which a curve must rise, before its width means anything
_JUMP = 2.0  # spacings of the budgets within which a rise counts as a jump
_LEAST = 1e-4  # of a share, the least variance that rounding leaves


def measure_jumps(
    budgets: Sequence[float] | Array, values: Sequence[float] | Array,
    errors: Sequence[float] | Array,
) -> Finding:  # fmt: skip
    """Test whether a continuous measure jumps, too (Schaeffer et al. 2023, arXiv 2304.15004).

    A logistic rise over log compute: the number is the factor of compute from a tenth to nine
    tenths of it. A jump is one whose interval holds a step and ends within two spacings of the
    budgets. Needs six budgets.
    """
    compute, y, sigma = arrays(6, budgets=budgets, values=values, errors=errors)
    check_rising(compute)
    check_errors(sigma)
    x = np.log10(compute)
    rise = fit_rise(x, y, sigma)
    flat = float(np.ptp(y)) < _RISES * float(
        np.sqrt(sigma[y.argmax()] ** 2 + sigma[y.argmin()] ** 2)
    )
    spacing = float(np.diff(x).max())
    low, high = 10**rise.low, 10**rise.high
    p = float(chi2.sf((rise.step - rise.chi_square) / rise.inflation, 1))
    if flat:
        verdict = "the measure does not rise"
    elif rise.low > 0:
        verdict = f"the measure rises smoothly, over a factor of {10**rise.extent:.3g} of compute"
    elif rise.high <= _JUMP * spacing:
        verdict = "the measure jumps, too: its rise takes less than the budgets can resolve"
    else:
        verdict = "a jump and a smooth rise cannot be told apart: budgets lie too far apart"
    return Finding(
        "continuous measure", 10**rise.extent, low, high, "factor of compute", p, verdict
    )


def accuracy_is_a_threshold(
    accuracies: Sequence[float] | Array, means: Sequence[float] | Array,
    spreads: Sequence[float] | Array, pairs: int,
) -> Finding:  # fmt: skip
    """Test whether accuracy is Phi(mean gap / spread of the gaps), what a smooth gap would give.

    All three are of the same pairs at each budget. The variance of their difference is that of
    the share less that of the estimate, since the latter is efficient for normal gaps (Hausman
    1978). The number is the mean excess of accuracy. Needs three budgets.
    """
    share, mean, spread = arrays(3, accuracies=accuracies, means=means, spreads=spreads)
    check_errors(spread)
    z = mean / spread
    expected = norm.cdf(z)
    estimate = norm.pdf(z) ** 2 * (1 + z**2 / 2)
    variance = np.maximum(expected * (1 - expected) - estimate, _LEAST) / pairs
    return _excess(
        "accuracy", share - expected, variance,
        "accuracy is what the size of the gap gives: its jump is a threshold's",
        "accuracy is {side} than the gap gives: pairs differ in kind",
    )  # fmt: skip


def composite_is_a_product(
    composite: Sequence[float] | Array, parts: Sequence[Sequence[float]] | Array, trials: int
) -> Finding:
    """Test whether a composite ability is the product of its parts (Okawa et al. 2023).

    composite: shares of trials that succeed at each budget. parts: (budgets, parts), those of each
    part, from trials of their own. arXiv 2310.09336. Needs three budgets.
    """
    (whole,) = arrays(3, composite=composite)
    each = np.asarray(parts, dtype=np.float64)
    if each.ndim != 2 or len(each) != len(whole) or each.shape[1] < 2:
        raise ValueError(
            f"parts={each.shape}: must be (budgets, parts), with two parts or more. Add some."
        )
    product = each.prod(1)
    others = np.stack([np.delete(each, k, 1).prod(1) for k in range(each.shape[1])], 1)
    variance = product * (1 - product) + (others**2 * each * (1 - each)).sum(1)
    return _excess(
        "composite", whole - product, np.maximum(variance, _LEAST) / trials,
        "the ability is the product of its parts: its jump is that of a product",
        "the ability is {side} than the product of its parts",
    )  # fmt: skip


def _excess(name: str, away: Array, variance: Array, none: str, some: str) -> Finding:
    """Test whether excesses with known variances are zero, all of them."""
    p = float(chi2.sf((away**2 / variance).sum(), len(away)))
    value, error = float(away.mean()), float(np.sqrt(variance.sum()) / len(away))
    reach = float(norm.ppf((1 + LEVEL) / 2)) * error
    side = (
        "more"
        if (away / np.sqrt(variance))[np.abs(away / np.sqrt(variance)).argmax()] > 0
        else "less"
    )
    verdict = none if p > _ALPHA else some.format(side=side)
    return Finding(name, value, value - reach, value + reach, "share", p, verdict)


def seeds_are_bimodal(values: Sequence[float] | Array) -> Finding:
    """Test whether seeds at the knee have it or have it not: the dip test. Needs eight seeds."""
    (seeds,) = arrays(8, seeds=values)
    p = dip_p(seeds)
    verdict = (
        "seeds have the ability or do not have it"
        if p < _ALPHA
        else "seeds scatter about one value, as far as so few can tell"
    )
    return Finding("seeds", dip(seeds), _NAN, _NAN, "dip", p, verdict)


def one_curve_of_loss(
    losses: Sequence[float] | Array, values: Sequence[float] | Array,
    errors: Sequence[float] | Array, params: Sequence[float] | Array,
) -> Finding:  # fmt: skip
    """Test whether an ability follows from the loss alone, whatever parameters and data are.

    A logistic curve of the loss, and beside it the logarithm of the number of parameters: its
    coefficient is how much better a ten times larger model is at equal loss (Du et al. 2024,
    arXiv 2403.15796, say that it is not). Needs eight runs of two sizes or more.
    """
    loss, y, sigma, size = arrays(8, losses=losses, values=values, errors=errors, params=params)
    check_errors(sigma)
    if np.ptp(size) == 0 or (size <= 0).any():
        raise ValueError("params: must be positive and of two sizes or more. Add another size.")
    sizes = np.log10(size / np.exp(np.log(size).mean()))
    plain = fit_rise(loss, y, sigma)
    rise = fit_rise(loss, y, sigma, sizes[:, None])
    value, error = float(rise.further[0]), float(rise.further_errors[0])
    reach = float(norm.ppf((1 + LEVEL) / 2)) * error
    p = float(2 * norm.sf(abs(value) / error))
    scattered = chi2.sf(plain.chi_square, plain.freedom) < _ALPHA
    if p < _ALPHA:
        verdict = f"at equal loss larger models have {'more' if value > 0 else 'less'} of it"
    elif scattered:
        verdict = "no one curve of loss fits, and size does not explain why"
    else:
        verdict = "the ability lies on one curve of the loss"
    return Finding(
        "loss", value, value - reach, value + reach, "a factor of 10 in parameters", p, verdict
    )
