"""Laws through the best of each budget, against brute force, closed forms and numpy's lines."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from sweeps.fit.forms.catalogue import CHINCHILLA, PURE_FRONTIER, form_of
from sweeps.fit.minima.envelope import approach_1, envelope
from sweeps.fit.minima.form import fit_minima
from sweeps.fit.minima.frontier import compute_optimal, frontier_point, loss_points, six_n
from sweeps.fit.minima.isoflop import (
    exponents_of,
    isoflop_minima,
    parabola_bias,
    parabola_draws,
    slope_of,
)
from sweeps.fit.minima.splines import spline_law
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.table import Table
from sweeps.fit.trust.bootstrap import bootstrap_fit

TRUE = {"E": 0.25, "A": 30.0, "alpha": 0.42, "B": 900.0, "beta": 0.55}
FLOPS = np.geomspace(3e11, 6e13, 4)


def law(params, tokens):
    return TRUE["E"] + TRUE["A"] / params ** TRUE["alpha"] + TRUE["B"] / tokens ** TRUE["beta"]


def dear(params):
    """Return FLOPs a token that are not 6 N."""
    return 6.0 * params + 4e4 * np.sqrt(params)


@pytest.fixture(scope="module")
def fit():
    """Return the exact law, fitted to rows of 6 N D FLOPs."""
    params = (np.geomspace(6e3, 1e5, 4)[:, None] * np.geomspace(0.3, 3.0, 5)).ravel()
    tokens = np.repeat(FLOPS, 5) / 6 / params
    return fit_form(CHINCHILLA, {"params": params, "tokens": tokens}, law(params, tokens))


@pytest.fixture(scope="module")
def boot(fit):
    """Return a few resamples of it."""
    return bootstrap_fit(fit, range(20), resamples=30)


@pytest.mark.parametrize("cost", [six_n, dear])
@pytest.mark.parametrize("flops", [1e11, 3e13, 1e17])
def test_the_best_split_is_where_scipy_finds_it(fit, cost, flops):
    params, tokens, loss, interior = compute_optimal(fit, fit.theta, flops, cost)

    def along(log_n):
        size = np.exp(log_n)
        return law(size, flops / cost(size))

    best = minimize_scalar(along, bounds=(5, 25), method="bounded", options={"xatol": 1e-10})
    assert interior.all()
    assert np.log(params[0]) == pytest.approx(best.x, abs=2e-5)
    assert tokens[0] * cost(params)[0] == pytest.approx(flops, rel=1e-12)
    assert loss[0] == pytest.approx(best.fun, rel=1e-8)


@pytest.mark.parametrize("flops", [3e12, 1e13, 7e14])
def test_under_6n_the_best_split_is_the_papers_to_a_millionth(fit, flops):
    alpha, beta = TRUE["alpha"], TRUE["beta"]
    ratio = alpha * TRUE["A"] / (beta * TRUE["B"])
    exact = ratio ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))
    found = compute_optimal(fit, fit.form.theta(**TRUE), flops, six_n)[0][0]
    assert found == pytest.approx(exact, rel=2e-6)


def test_each_law_of_a_batch_has_its_own_best_split(fit):
    other = fit.form.theta(**(TRUE | {"A": 60.0}))
    both = compute_optimal(fit, np.stack([fit.theta, other]), 1e13, six_n)
    for row, theta in enumerate((fit.theta, other)):
        alone = compute_optimal(fit, theta, 1e13, six_n)
        assert [float(v[row]) for v in both] == pytest.approx([float(v[0]) for v in alone])


@pytest.mark.parametrize(("span", "interior"), [(1e4, True), (1.5, False)])
def test_a_best_split_at_the_end_of_the_sizes_searched_is_none(fit, span, interior):
    *_, found = compute_optimal(fit, fit.theta, 1e15, dear, span)
    assert found.tolist() == [interior]


def test_a_point_of_the_frontier_holds_the_exact_and_the_textbook_split(fit, boot):
    sizes = [1e3, 2e4, 3e4, 1e6]
    point = frontier_point(fit, boot, 1e13, dear, 2e12, sizes)
    exact, book = (compute_optimal(fit, fit.theta, 1e13, cost) for cost in (dear, six_n))
    assert [point.params, point.tokens, point.loss] == [float(v[0]) for v in exact[:3]]
    assert list(point.textbook.values()) == [float(v[0]) for v in book[:3]]
    assert point.extrapolation_factor == 5
    for name in ("params", "tokens", "loss"):  # of exact rows all resamples agree
        assert point.intervals[name] == pytest.approx([getattr(point, name)] * 2, rel=1e-4)
    losses = [law(n, 1e13 / dear(n)) for n in sizes]
    best = int(np.argmin(losses))
    assert point.feasible["params"] == sizes[best]
    assert point.feasible["tokens"] == pytest.approx(1e13 / dear(sizes[best]))
    assert point.feasible["loss"] == pytest.approx(losses[best])
    assert point.feasible["loss_cost"] == pytest.approx(losses[best] / point.loss - 1, rel=1e-6)
    assert frontier_point(fit, boot, 1e13, dear, 2e12).feasible is None


def test_a_law_of_compute_alone_is_read_off_at_its_targets():
    flops = np.geomspace(1e12, 1e15, 6)
    fit = fit_form(PURE_FRONTIER, {"flops": flops}, 3.0 * flops**-0.1)
    points = loss_points(fit, bootstrap_fit(fit, range(6), 20), [1e13, 1e16], 1e15)
    assert [p["loss"] for p in points] == pytest.approx([3 * 1e13**-0.1, 3 * 1e16**-0.1])
    assert [p["extrapolation_factor"] for p in points] == pytest.approx([0.01, 10])
    for point in points:
        assert point["intervals"]["loss"] == pytest.approx([point["loss"]] * 2, rel=1e-6)


# --- approach 1 -----------------------------------------------------------------------------------


def test_the_envelope_is_what_no_row_of_at_most_its_compute_beats():
    rng = np.random.default_rng(0)
    for _ in range(30):
        flops, loss = rng.integers(1, 9, 20).astype(float), rng.integers(1, 30, 20).astype(float)
        rows = envelope(flops, loss)
        assert (np.diff(flops[rows]) > 0).all()
        assert (np.diff(loss[rows]) < 0).all()
        kept = {(flops[i], loss[i]) for i in rows}
        for i in range(20):
            beaten = any(
                flops[j] <= flops[i] and loss[j] <= loss[i]
                and (flops[j], loss[j]) != (flops[i], loss[i])
                for j in range(20)
            )  # fmt: skip
            assert ((flops[i], loss[i]) in kept) == (not beaten)


def test_approach_1_is_the_line_through_the_envelope():
    flops = np.repeat(np.geomspace(1e10, 1e14, 5), 2)
    params = np.where(np.arange(10) % 2, 1.7, 1.0) * flops**0.45
    loss = np.where(np.arange(10) % 2, 2.0, 1.0) * flops**-0.1  # the second of each is beaten
    loss[6:8] *= [3.0, 0.1]  # but for one budget
    found = approach_1(params, flops, loss, range(10), 0.9, 200, 0)
    rows = [0, 2, 4, 7, 8]
    slope = np.polyfit(np.log(flops[rows]), np.log(params[rows]), 1)[0]
    if loss[8] > loss[7]:
        rows = rows[:-1]
        slope = np.polyfit(np.log(flops[rows]), np.log(params[rows]), 1)[0]
    assert found["params"] == pytest.approx(slope)
    assert (found["points"], found["sizes"]) == (len(rows), len(rows))
    low, high = found["interval"]
    assert low <= slope <= high
    assert high - low < 0.3


@pytest.mark.parametrize(("points", "sizes", "ok"), [(3, 3, False), (4, 2, False), (4, 3, True)])
def test_approach_1_needs_four_points_of_three_sizes(points, sizes, ok):
    flops, params = np.geomspace(1e10, 1e13, points), np.arange(points) % sizes + 1.0
    found = approach_1(params, flops, flops**-0.1, range(points), 0.9, 50, 0)
    assert (found["params"] is not None) == ok
    if not ok:
        assert f"{points} points of {sizes} sizes" in found["reason"]


# --- approach 2: parabolas ------------------------------------------------------------------------


def valley(flops, best, scatter=(), bend=0.05, offsets=(-2, -1, 0, 1, 2), height=1.0):
    """Return a budget whose log loss is a parabola of log params, with residuals on top."""
    x = np.array(offsets, dtype=float)
    rest = np.array(scatter) if len(scatter) else np.zeros(len(x))
    return flops, best * np.exp(x), height * np.exp(bend * x**2 + rest)


def test_the_noise_of_a_minimum_is_pooled_over_budgets_or_the_floor():
    ripple = np.array([1, -4, 6, -4, 1])  # what no parabola of five even points can follow
    tables = [
        valley(1e12, 1e4, 1e-3 * ripple),
        valley(4e12, 2e4, -2e-3 * ripple),
        valley(16e12, 4e4, offsets=(-1, 0, 1)),  # three sizes tell nothing of the noise
    ]
    own = np.sqrt((1e-6 + 4e-6) * float(ripple @ ripple) / (2 + 2))
    for floor in (0.0, 0.05):
        minima, draws = isoflop_minima(tables, floor, dear, 0.8, 300, seed=7)
        rng = np.random.default_rng(7)
        for row in range(2):
            x, y = (np.log(column) for column in tables[row][1:])
            where, height = parabola_draws(x, y, max(own, floor), 300, rng)
            np.testing.assert_allclose(draws[row], where, rtol=1e-7)
            vertex = np.log(tables[row][1][2])
            assert minima[row].params == pytest.approx(np.exp(vertex))
            assert minima[row].tokens == pytest.approx(tables[row][0] / dear(np.exp(vertex)))
            tails = np.nanpercentile(np.exp(where), [10, 90])
            assert minima[row].interval == pytest.approx(tails, rel=1e-7)
            tails = np.nanpercentile(np.exp(height), [10, 90])
            assert minima[row].loss_interval == pytest.approx(tails, rel=1e-7)
            fitted = np.polyval(np.polyfit(x, y, 2), vertex)
            assert minima[row].loss == pytest.approx(np.exp(fitted))
        assert not minima[2].interior
        assert np.isnan(draws[2]).all()
        assert [m.sizes for m in minima] == [5, 5, 3]


def test_redrawn_vertices_beyond_the_sizes_by_their_range_are_none():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    where, value = parabola_draws(x, 1e-3 * (x - 2.5) ** 2, 0.01, 2000, np.random.default_rng(0))
    known = where[np.isfinite(where)]
    assert (np.isfinite(where) == np.isfinite(value)).all()
    assert -3 < known.min() < -2
    assert 5 < known.max() < 6
    still, _ = parabola_draws(x, (x - 2.5) ** 2, 0.0, 3, np.random.default_rng(0))
    assert still == pytest.approx([2.5] * 3)


def test_the_slope_of_the_minima_is_that_of_a_line_in_logs():
    budgets = np.array([1e12, 4e12, 3e13])
    logs = np.random.default_rng(0).standard_normal((3, 5))
    expected = [np.polyfit(np.log(budgets), column, 1)[0] for column in logs.T]
    assert slope_of(budgets, logs) == pytest.approx(expected)


def test_the_bias_of_parabolas_is_what_they_find_on_the_laws_own_losses(fit):
    tables = []
    for flops, sizes in ((1e12, 5), (9e12, 6), (8e13, 3)):  # three sizes bend no parabola
        best = float(compute_optimal(fit, fit.theta, flops, dear)[0][0])
        params = best * np.geomspace(0.2, 9.0, sizes)
        tables.append((flops, params, np.ones(sizes)))
    off = (5e12, np.geomspace(1e8, 1e10, 5), np.ones(5))  # its minimum is not among the sizes
    found, true = [], []
    for flops, params, _ in tables[:2]:
        a, b, _ = np.polyfit(np.log(params), np.log(law(params, flops / dear(params))), 2)
        found.append(-b / (2 * a))
        true.append(float(np.log(compute_optimal(fit, fit.theta, flops, dear)[0][0])))
    bias = parabola_bias(fit, [*tables, off], dear)
    factor = np.exp(np.mean(np.subtract(found, true)))
    assert bias["params_factor"] == pytest.approx(factor, rel=1e-5)
    slope = (np.diff(found) - np.diff(true))[0] / np.log(9)
    assert bias["exponent"] == pytest.approx(slope, rel=1e-4)
    assert abs(bias["exponent"]) > 1e-4
    assert parabola_bias(fit, [tables[0], tables[2], off], dear) is None


def test_exponents_of_compute_are_those_of_the_coefficients_and_of_the_minima(fit, boot):
    tables = [valley(1e12, 1e4), valley(4e12, 3e4), valley(3e13, 5e4), valley(1e14, 9, bend=-1)]
    minima, draws = isoflop_minima(tables, 0.002, six_n)
    found = exponents_of(fit, boot, minima, draws)
    assert found["approach_3"]["params"] == pytest.approx(0.55 / 0.97, rel=1e-6)
    slope = np.polyfit(np.log([1e12, 4e12, 3e13]), np.log([1e4, 3e4, 5e4]), 1)[0]
    assert found["approach_2"]["params"] == pytest.approx(slope)
    low, high = found["approach_2"]["interval"]
    assert low < slope < high
    assert high - low < 0.2
    one = exponents_of(fit, boot, minima[2:], draws[2:])
    assert one["approach_2"] == {
        "params": None, "reason": "1 interior minima, at least 2 are needed"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "coefficients", "expected"),
    [
        ("chinchilla_tied", {"E": 0.2, "A": 9.0, "alpha": 0.4, "B": 90.0}, 0.5),
        ("overtraining", {"E": 0.2, "a": 9.0, "eta": 0.4, "b": 90.0}, 0.5),
        ("skaling", {"E": 0.2, "A": 40.0, "alpha": 0.4, "B": 900.0, "beta": 0.6, "k": 0.6}, 0.6),
        ("kaplan", {"N_c": 1e4, "D_c": 1e6, "alpha_N": 0.3, "alpha_D": 0.5}, 0.625),
    ],
)
def test_the_exponent_of_other_forms_is_theirs(name, coefficients, expected):
    # Kaplan: with n = alpha_N / alpha_D and d = 1 inside, N* grows as C^(d / (n + d)).
    form = form_of(name)
    params = (np.geomspace(1e4, 1e5, 4)[:, None] * np.geomspace(0.3, 3, 4)).ravel()
    columns = {"params": params, "tokens": np.repeat(FLOPS, 4) / 6 / params}
    if set(form.coefficient_names) != set(coefficients):
        pytest.fail(f"{form.coefficient_names}")
    theta = form.theta(**coefficients)
    target = np.exp(form.bind(columns).log_prediction(theta[None])[0])
    fit = fit_form(form, columns, target)
    found = exponents_of(fit, bootstrap_fit(fit, range(16), 5), [], np.zeros((0, 5)))
    assert found["approach_3"]["params"] == pytest.approx(expected, rel=1e-4)


# --- approach 2: splines --------------------------------------------------------------------------


def even(flops, best, bend=0.05):
    """Return a budget of nine even sizes about its best one."""
    return valley(flops, best, bend=bend, offsets=np.linspace(-2, 2, 9))


def test_a_spline_law_is_the_weighted_line_through_its_minima():
    tables = [even(1e12, 1e4), even(4e12, 3e4), even(3e13, 5e4), even(3e14, 2e5, bend=0.4)]
    law = spline_law(tables, 0.004, 0.8, 400, seed=3)
    x = np.log([m.budget for m in law.minima])
    y = np.array([m.log_params for m in law.minima])
    weights = 1 / np.array([m.spread for m in law.minima])
    slope, offset = np.polyfit(x, y, 1, w=weights)
    assert law.exponent == pytest.approx(slope)
    assert law.coefficient == pytest.approx(np.exp(offset))
    error = y - slope * x - offset
    assert law.r2 == pytest.approx(1 - error @ error / ((y - y.mean()) @ (y - y.mean())))
    assert 0.5 < law.r2 < 0.999
    lines = [
        np.polyfit(x, [m.draws[k] for m in law.minima], 1, w=weights) for k in range(len(law.draws))
    ]
    np.testing.assert_allclose(law.draws, lines, rtol=1e-6)
    tails = np.percentile([line[0] for line in lines], [10, 90])
    assert law.interval == pytest.approx(tails)
    at, (low, high) = law.params(1e15, 0.8)
    assert at == pytest.approx(np.exp(offset) * 1e15**slope)
    drawn = np.exp(law.draws @ [np.log(1e15), 1.0])
    assert (low, high) == pytest.approx(np.percentile(drawn, [10, 90]))


def test_a_minimum_is_not_known_better_than_a_third_of_a_gap():
    sharp = spline_law([even(1e12, 1e4, 5.0), even(4e12, 3e4, 5.0)], 1e-6, draws=50).minima[0]
    assert sharp.log_params == pytest.approx(np.log(1e4), abs=0.02)
    assert sharp.spread == pytest.approx(0.33 * 0.5, rel=0.01)
    assert sharp.loss == pytest.approx(1.0, rel=1e-3)
    blunt = spline_law([even(1e12, 1e4), even(4e12, 3e4)], 0.12, draws=4000).minima[0]
    share = len(blunt.draws) / 4000
    assert share < 1
    assert blunt.spread == pytest.approx(np.std(blunt.draws) / share)
    assert blunt.log_params == np.median(blunt.draws)


def test_a_budget_that_most_redraws_leave_open_is_refused_with_their_share():
    open_one = valley(3e13, 1e4, bend=1e-4, offsets=(-1, 0, 1))
    sharp = [even(1e12, 1e4, 5.0), even(4e12, 3e4, 5.0)]
    law = spline_law([*sharp, open_one], 0.1, draws=500)
    refused = law.minima[2]
    assert refused.log_params is None
    assert refused.reason.startswith("in ")
    assert 50 < float(refused.reason.split()[1]) < 100
    few = spline_law([even(1e12, 1e4), even(4e12, 3e4), valley(1e13, 1e4, offsets=(0, 1))], 0.0)
    assert few.minima[2].reason == "2 sizes: a spline needs at least 3"
    with pytest.raises(ValueError, match="budgets=1: at least 2 with an interior minimum"):
        spline_law([even(1e12, 1e4), valley(1e13, 1e4, offsets=(0, 1, 2))], 0.0)


def test_of_several_seeds_of_a_size_a_spline_takes_the_least_loss():
    flops, params, loss = even(1e12, 1e4)
    twice = flops, np.tile(params, 2), np.concatenate([loss, loss + 0.5])
    once = spline_law([even(1e12, 1e4), even(4e12, 3e4)], 0.0)
    found = spline_law([twice, even(4e12, 3e4)], 0.0)
    assert found.minima[0].log_params == once.minima[0].log_params


def table_of(budgets, noise=()):
    flops = np.concatenate([np.full(len(params), c) for c, params, _ in budgets])
    params = np.concatenate([params for _, params, _ in budgets])
    loss = np.concatenate([loss for *_, loss in budgets])
    optional = {"loss_noise": [str(n) for n in noise]} if len(noise) else {}
    return Table(
        columns={"params": params, "flops": flops}, target=loss, optional=optional,
        names=[f"r{i}" for i in range(len(loss))], clusters=list(range(len(loss))),
        excluded=[], notes=[], lines=list(range(2, len(loss) + 2)),
    )  # fmt: skip


BUDGETS = [even(1e12, 1e4), even(4e12, 3e4), even(3e13, 5e4), even(3e14, 2e5)]


@pytest.mark.parametrize(
    ("noise", "stated", "expected"),
    [(0.004, (), 0.004), (None, (), 0.0), (None, [0.001, 0.002, 0.009] * 12, 0.002),
     (0.004, [0.001] * 36, 0.004)],
)  # fmt: skip
def test_the_form_minima_is_that_spline_law(noise, stated, expected):
    options = FitOptions(noise=noise, flops=[1e15], level=0.8, resamples=200, seed=5)
    result = fit_minima(table_of(BUDGETS, stated), options)
    law = spline_law(BUDGETS, expected, 0.8, 200, 5)
    assert result["noise"] == expected
    assert result["coefficients"] == pytest.approx({"a": law.exponent, "N_1": law.coefficient})
    assert result["intervals"]["a"] == pytest.approx(law.interval)
    tails = np.percentile(np.exp(law.draws[:, 1]), [10, 90])
    assert result["intervals"]["N_1"] == pytest.approx(tails, rel=0.05)
    (point,) = result["frontier"]
    size, (low, high) = law.params(1e15, 0.8)
    assert (point["params"], point["tokens"]) == pytest.approx((size, 1e15 / 6 / size))
    assert point["intervals"]["params"] == pytest.approx((low, high))
    assert point["intervals"]["tokens"] == pytest.approx((1e15 / 6 / high, 1e15 / 6 / low))
    assert point["extrapolation_factor"] == pytest.approx(1e15 / 3e14)
    error = [
        np.log(law.coefficient) + law.exponent * np.log(m.budget) - m.log_params for m in law.minima
    ]
    assert [r["log_residual"] for r in result["residuals"]] == pytest.approx(error)
    weighted = sum((e / m.spread) ** 2 for e, m in zip(error, law.minima, strict=True))
    assert result["objective"] == pytest.approx(weighted)
    assert [m["params"] for m in result["minima"]] == pytest.approx(
        [np.exp(m.log_params) for m in law.minima]
    )
    assert result["resamples_failed"] == pytest.approx(1 - len(law.draws) / 200)
    unknown = [w for w in result["warnings"] if "noise of a repeated run is unknown" in w]
    assert bool(unknown) == (expected == 0)
    everywhere = fit_minima(table_of(BUDGETS), FitOptions(noise=0.004))["frontier"]
    assert [p["flops"] for p in everywhere] == pytest.approx([1e12, 4e12, 3e13, 3e14])


def test_minima_say_whether_their_exponent_is_known():
    def verdicts(budgets, noise=1e-4):
        return fit_minima(table_of(budgets), FitOptions(noise=noise))["identified"]

    assert verdicts(BUDGETS)["a"] == {"ok": True, "reason": None}
    two = verdicts(BUDGETS[:2])
    assert two["a"]["reason"] == two["N_1"]["reason"] == "2 interior minima: 3 are needed"
    flat = [even(1e12, 1e4), even(1.3e12, 1e4), even(1.6e12, 1e4)]
    assert "too wide" in verdicts(flat, 0.02)["a"]["reason"]
    ended = [*BUDGETS[:3], valley(3e14, 1e5, offsets=np.linspace(0, 2, 9))]
    said = fit_minima(table_of(ended), FitOptions(noise=1e-4))["warnings"]
    assert any(w.startswith("The isoFLOP minimum at 3e+14 FLOPs is refused: ") for w in said)
