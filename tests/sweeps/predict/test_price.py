"""The cost of a loss: the optimum is one, and assumptions do what they say."""

import json
from pathlib import Path

import pytest
from scipy.optimize import minimize_scalar

from launch.planner.machine import load_machine
from models.count import count_params
from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.saved import read_law, saved_law
from sweeps.predict.economics import main
from sweeps.predict.price import PriceConfig, costs, factor_of_year, frontier_of, shape_of

STUDIES = Path(__file__).parents[3] / "docs" / "studies"
LAW = STUDIES / "demo" / "law.json"
KAPLAN = STUDIES / "cpu_isoflop" / "law.json"


def chinchilla():
    """Hoffmann et al. 2022, equation 10."""
    point = {"flops": 1e21, "params": 1e9, "tokens": 1e21 / 6e9, "loss": 2.3}
    point |= {"intervals": {"loss": (2.277, 2.323)}, "extrapolation_factor": 1.0}
    row = {"params": 1e9, "tokens": 2e10, "loss": 2.6}
    coefficients = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
    found = {"coefficients": coefficients, "residuals": [row], "frontier": [point], "level": 0.9}
    return frontier_of(saved_law(CHINCHILLA, found))


def test_the_optimum_reaches_the_loss_with_the_least_compute():
    frontier = chinchilla()
    params, tokens, flops = frontier.optimum(2.0)
    assert frontier.law.predict([params], [tokens])[0] == pytest.approx(2.0, rel=1e-9)

    def compute(log_params):
        rest = 2.0 - 1.69 - 406.4 / 10 ** (log_params * 0.34)
        return 1e99 if rest <= 0 else 6 * 10**log_params * (410.7 / rest) ** (1 / 0.28)

    best = minimize_scalar(compute, bounds=(6, 13), method="bounded")
    assert flops == pytest.approx(best.fun, rel=1e-4)
    assert frontier.at(flops)[2] == pytest.approx(2.0, rel=1e-9)


def test_chinchillas_optimum_is_that_of_its_closed_form():
    # Hoffmann et al. 2022, section 3.3: A / N^alpha = r beta / (alpha + beta), r = L - E.
    params, tokens, flops = chinchilla().optimum(2.0)
    assert params == pytest.approx((406.4 * 0.62 / (0.31 * 0.28)) ** (1 / 0.34), rel=1e-7)
    assert tokens == pytest.approx((410.7 * 0.62 / (0.31 * 0.34)) ** (1 / 0.28), rel=1e-7)
    assert flops == pytest.approx(6 * params * tokens, rel=1e-12)


def test_a_loss_that_the_law_does_not_reach_is_refused():
    with pytest.raises(ValueError, match=r"must be above the law's floor E=1\.69"):
        chinchilla().optimum(1.5)
    with pytest.raises(ValueError, match=r"losses=1\.69: the law reaches it at no compute"):
        chinchilla().optimum(1.69 + 1e-6)


def test_years_multiply_the_assumed_changes():
    settings = PriceConfig(
        law="x", price_per_year=-0.2, efficiency_per_year=0.6, algorithm_per_year=1.0
    )
    assert factor_of_year(settings, 0) == 1.0
    assert factor_of_year(settings, 3) == pytest.approx((0.8 / 1.6 / 2) ** 3)


def test_money_is_flops_over_speed_times_price():
    settings = PriceConfig(law="x", losses=[2.2], mfu=0.4)
    (cost,) = costs(chinchilla(), [load_machine("h100")], settings)
    hours = cost.flops / (0.4 * 989e12) / 3600
    assert cost.money == pytest.approx(2.5 * hours)
    assert cost.interval[0] < cost.money < cost.interval[1]


@pytest.mark.parametrize("params", [1e5, 1e7, 1e9, 3e10])
def test_a_shape_has_about_the_parameters_asked_for(params):
    assert count_params(shape_of(params, 64)).total == pytest.approx(params, rel=0.5)


def test_the_demos_law_is_read_with_its_own_ratio_and_warnings():
    frontier = frontier_of(read_law(LAW))
    assert frontier.largest_flops == pytest.approx(2e12, rel=0.1)
    assert 4 < frontier.flops_per_param_token < 8
    assert frontier.at(frontier.largest_flops)[2] == pytest.approx(0.21, rel=0.05)
    assert any("not identified" in warning for warning in frontier.law.warnings)


@pytest.mark.heavy
@pytest.mark.parametrize("path", [LAW, KAPLAN])
def test_a_loss_costs_what_the_laws_own_frontier_says(path, capsys):
    frontier = json.loads(path.read_text())["frontier"]
    book = [row["textbook"] for row in frontier]  # the law's optima where a token costs 6 N FLOPs
    losses = f"losses=[{','.join(str(point['loss']) for point in book)}]"
    assert (
        main([f"law={path}", losses, "flops_per_param_token=6", "machines=[cpu2]", "--json"]) == 0
    )
    for cost, point, row in zip(
        json.loads(capsys.readouterr().out)["costs"], book, frontier, strict=True
    ):
        assert cost["flops"] == pytest.approx(row["flops"], rel=1e-7)
        assert cost["params"] == pytest.approx(point["params"], rel=1e-6)
        assert cost["tokens"] == pytest.approx(point["tokens"], rel=1e-6)


@pytest.mark.heavy
def test_the_page_holds_the_figure_and_no_script_of_a_law(tmp_path, capsys):
    hostile = json.loads(LAW.read_text()) | {"warnings": ["<script>alert(1)</script>"]}
    law, page = tmp_path / "law.json", tmp_path / "page.html"
    law.write_text(json.dumps(hostile))
    assert main([f"law={law}", "machines=[cpu2,h100]", f"out={page}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["costs"]) == 6
    assert len(found["costs"][0]["by_year"]) == 6
    text = page.read_text()
    assert "<svg" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert main([f"law={law}"]) == 0
    assert "times beyond the runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["machines=[h100]"], "law=: is required"),
        (["law=none.json"], "cannot be read"),
        ([f"law={LAW}", "machines=[]"], "machines=[]: must hold at least 1 value"),
        ([f"law={LAW}", "machines=[h9]"], "machine=h9: unknown choice"),
        ([f"law={LAW}", "losses=[0.01]"], "above the law's floor"),
        ([f"law={KAPLAN}", "losses=[1e-9]"], "the law reaches it at no compute"),
        ([f"law={LAW}", "price_per_year=-1"], "must be above -1"),
        ([f"law={LAW}", "years=99"], "years=99: must be at most 30"),
        ([f"law={LAW}", "foo=1"], "foo: unknown key"),
        ([f"law={LAW}", "--html"], "unknown flag"),
    ],
)
def test_bad_input_is_refused_with_status_2(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err
