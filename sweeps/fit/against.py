"""Whether rows contradict published coefficients of a form."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sweeps.fit.optimum.nested import chance
from sweeps.fit.optimum.profile import noise_scale
from sweeps.fit.optimum.solve import Fit


def against(fit: Fit, published: Mapping[str, float]) -> dict[str, Any]:
    """Return the likelihood ratio of published coefficients within the form fitted here.

    coefficients: theirs; objective: at them; statistic: what the fit saves in units of the noise,
    as `nested_test` has it; p: the chance of so large a statistic were they true;
    mean_relative_error: of their predictions of these rows.

    Raises:
        ValueError: a coefficient is missing, unknown, or not above 0.
    """
    names = fit.form.coefficient_names
    if set(published) != set(names):
        wrong = sorted(set(published) ^ set(names))
        raise ValueError(
            f"against.{wrong[0]}=: form={fit.form.name} has the coefficients {', '.join(names)}; "
            "give all of them and no other."
        )
    if bad := [name for name, value in published.items() if not value > 0]:
        raise ValueError(f"against.{bad[0]}={published[bad[0]]}: must be above 0.")
    problem = fit.objective_of
    theta = fit.form.theta(**published)
    objective = float(problem.value(theta[None], problem.unit)[0])
    unit = noise_scale(fit, smooth=True) * float(problem.unit[0, 0])
    statistic = 2 * max(objective - fit.objective, 0.0) / unit if unit > 0 else float("inf")
    left = max(len(fit.target) - fit.num_free, 1)
    off = np.expm1(fit.form.bind(fit.columns).log_prediction(theta[None])[0] - np.log(fit.target))
    return {
        "coefficients": dict(published),
        "objective": objective,
        "statistic": statistic,
        "degrees": fit.num_free,
        "p": chance(statistic, fit.num_free, left),
        "mean_relative_error": float(np.mean(off)),
    }
