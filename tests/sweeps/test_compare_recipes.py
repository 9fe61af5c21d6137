"""Tables by their own best form and of any kind, and the recipes of one table by one law."""

import csv
import json

import numpy as np
import pytest

from sweeps.compare.__main__ import main
from sweeps.compare.command import compare, compare_in
from sweeps.compare.recipes import Recipe, _clustered, _turn, recipes_of
from sweeps.fit.law import fit_table
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.runs import Run

FEW = FitOptions(resamples=60)


class Frame:
    """A DataFrame as polars has it: installed or not, it is read by what it can do."""

    columns = ("params", "tokens", "loss")

    def __init__(self, table):
        self.to_dicts = lambda: table


def rows(factor=1.0, noise=0.003, seed=0, steeper=0.0, fading=0.0, recipe="", budgets=4, sizes=5):
    """Return an isoFLOP table as dicts; its runs need `factor` times fewer tokens."""
    rng = np.random.default_rng(seed)
    found = []
    for flops in 1e18 * 4.0 ** np.arange(budgets):
        for params in 0.6 * (flops / 6) ** 0.45 * np.geomspace(0.3, 0.66 * sizes, sizes):
            tokens = flops / 6 / params
            loss = 1.69 + 406.4 / params ** (0.34 + steeper) + 410.7 / (factor * tokens) ** 0.28
            loss = (loss + fading * (factor * flops / 1e18) ** -0.4) * np.exp(
                noise * rng.standard_normal()
            )
            row = {"params": float(params), "tokens": float(tokens), "loss": float(loss)}
            found.append(row | ({"recipe": recipe} if recipe else {}))
    return found


def write(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return str(path)


@pytest.mark.heavy
def test_every_kind_of_table_is_compared_and_gives_one_answer(tmp_path):
    a, b = rows(), rows(1.5, seed=1)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(b), encoding="utf-8")
    options = FitOptions(resamples=20)
    first, *_ = compare(write(tmp_path / "a.csv", a), str(path), options, form="chinchilla")
    found, *_ = compare(Frame(a), b, options, form="chinchilla")
    assert found.factor == pytest.approx(first.factor, rel=1e-9)
    assert (found.a, found.b) == ("Frame", "list")
    assert first.verdict.startswith("b is worth 1.")


@pytest.mark.heavy
def test_a_table_without_a_study_is_compared_by_its_own_best_form(tmp_path):
    a, b = rows(noise=0.001, budgets=6), rows(1.5, noise=0.001, seed=1, budgets=6)
    found, *_ = compare(a, b, FEW)
    assert all(any(f"list ({x}): its law is" in note for note in found.notes) for x in "AB")
    assert any("Chosen: " in note for note in found.notes)
    low, high = found.interval
    assert low < 1.5 < high


@pytest.mark.heavy
def test_where_no_form_holds_the_nearest_budgets_tell_the_multiplier():
    """Chinchilla's form errs here by a tenth of the factor, its interval holds another one."""
    shape = {"noise": 0.001, "fading": 0.6, "budgets": 6, "sizes": 9}
    a, b = (rows(factor, seed=seed, **shape) for factor, seed in ((1.0, 0), (1.5, 1)))
    found, one, _ = compare(a, b, FEW)
    assert "list (A): the nearest budgets tell its least losses, not that law." in found.notes
    assert "list (B): the nearest budgets and that law tell its least losses." in found.notes
    assert np.isfinite(one.draws).all()
    mixed, *_ = compare(a, rows(1.5, seed=1, noise=0.001), FEW)
    assert "is told by the nearest budgets, list (B) by " in mixed.notes[-1]
    low, high = found.interval
    assert low < found.factor < high < 1.1 * low


@pytest.mark.heavy
def test_one_table_of_recipes_tells_what_each_is_worth_at_all_scales(tmp_path, capsys):
    table = (
        rows(recipe="adamw") + rows(1.5, seed=1, recipe="muon") + rows(0.8, seed=2, recipe="sgd")
    )
    path, out = write(tmp_path / "t.csv", table), tmp_path / "found.json"
    assert main([path, "resamples=60", f"out={out}"]) == 0
    text = capsys.readouterr().out
    assert "muon is worth 1." in text
    assert "adamw is worth 1.2" in text
    assert text.count("the same at all scales (90 % interval") == 2
    found = json.loads(out.read_text())
    assert [(f["a"], f["b"], f["shared"]) for f in found] == [
        ("adamw", "muon", "scaled"), ("adamw", "sgd", "scaled"),
    ]  # fmt: skip
    low, high = found[0]["interval"]
    assert low < 1.5 < high < 1.15 * low
    factors = [p["factor"] for p in found[0]["points"]]
    assert factors == pytest.approx([factors[0]] * len(factors), rel=1e-3)
    assert found[0]["tests"]["constant"]["p"] > 0.05
    law = fit_table(path, "chinchilla", FitOptions(resamples=5))
    assert any("of 3 recipes (adamw, muon, sgd): one law of all" in w for w in law["warnings"])
    words = [path, "reference=muon", "resamples=20", "--json"]
    assert main(words) == 0
    assert [f["a"] for f in json.loads(capsys.readouterr().out)] == ["muon", "muon"]


@pytest.mark.heavy
def test_slopes_that_differ_give_a_multiplier_at_both_ends():
    table = rows(recipe="plain", noise=0.002) + rows(
        recipe="steep", noise=0.002, seed=1, steeper=0.03
    )
    ((found, *_),) = compare_in(table, FEW)
    assert found.shared == "apart"
    assert found.verdict.startswith("Their slopes differ: ")
    assert "What steep is worth in compute of plain grows from " in found.verdict
    first, last = found.points[-1], found.points[0]
    assert last["interval"][0] > first["interval"][1]
    # The exact laws at both losses, on the grid of sizes at 6 N D FLOPs.
    for point in (first, last):
        assert point["interval"][0] < exact(point["loss"]) < point["interval"][1]


def exact(loss):
    """Return the least compute of the plain law at a loss over that of the steep one."""
    grid = np.geomspace(1e17, 1e22, 2000)
    sizes = np.geomspace(1e6, 1e12, 2000)[:, None]
    data = 410.7 / (grid / 6 / sizes) ** 0.28
    found = [1.69 + (406.4 / sizes**alpha + data).min(axis=0) for alpha in (0.34, 0.37)]
    plain, steep = (np.interp(-loss, -least, grid) for least in found)
    return plain / steep


@pytest.mark.heavy
def test_two_tables_may_share_a_law_and_a_recipe_s_columns_may_have_other_names(tmp_path):
    a, b = write(tmp_path / "a.csv", rows()), write(tmp_path / "b.csv", rows(1.5, seed=1))
    shared, *_ = compare(a, b, FEW, method="shared")
    table = rows(recipe="a") + rows(1.5, seed=1, recipe="b")
    table = [{"optimizer" if k == "recipe" else k: v for k, v in row.items()} for row in table]
    ((found, *_),) = compare_in(table, FEW, columns={"recipe": "optimizer"})
    assert found.factor == pytest.approx(shared.factor)
    assert found.interval == pytest.approx(shared.interval)
    with pytest.raises(ValueError, match="form=kaplan: recipes cannot share it"):
        compare_in(table, FEW, columns={"recipe": "optimizer"}, form="kaplan")
    with pytest.raises(ValueError, match="reference=c: is not among the recipes a, b"):
        compare_in(table, FEW, columns={"recipe": "optimizer"}, reference="c")


def test_equal_recipes_are_not_told_apart_and_small_ones_are_named():
    table = rows(recipe="a") + rows(seed=1, recipe="b")
    ((found, *_),) = compare_in(table, FitOptions(resamples=30))
    assert found.factor is None
    assert found.verdict.startswith("Refused: ")
    with pytest.raises(ValueError, match="recipe=b: runs=3: form=chinchilla has 5 coefficients"):
        compare_in(table[:23], FitOptions(resamples=30))


@pytest.mark.heavy
def test_a_law_that_the_nearest_budgets_contradict_says_so_in_its_verdict():
    """One recipe is worse by what larger budgets outgrow, which Chinchilla's form cannot hold."""
    shape = {"noise": 0.001, "sizes": 9, "budgets": 7}
    table = rows(recipe="a", **shape) + rows(recipe="b", seed=1, fading=1.0, **shape)
    ((found, *_),) = compare_in(table, FEW)
    assert "But at loss " in found.verdict
    assert "the nearest budgets, which assume no form, say " in found.verdict


@pytest.mark.heavy
def test_recipes_may_be_fitted_near_the_bests_of_their_budgets_alone():
    table = rows(recipe="a", noise=0.001, sizes=9) + rows(1.5, noise=0.001, sizes=9, recipe="b")
    ((near, one, _),) = compare_in(table, FitOptions(resamples=20, within=0.05))
    assert one.runs < 30
    assert any("runs lie beyond within=0.05 and are left out" in note for note in near.notes)
    assert near.factor == pytest.approx(1.5, rel=0.03)
    with pytest.raises(ValueError, match=r"within=0\.05: is for recipes that share a law"):
        compare(table, table, FitOptions(within=0.05))
    grid = [row | {"tokens": 1e9 * (1 + i % 7)} for i, row in enumerate(table)]
    with pytest.raises(ValueError, match=r"those of a form no budgets"):
        compare_in(grid, FitOptions(within=0.05))


def test_a_multiplier_that_turns_is_not_told_by_its_ends_alone():
    def points(*factors):
        return [{"loss": 3.0, "factor": f, "interval": (0.9 * f, 1.1 * f)} for f in factors]

    assert _turn(points(2.4, 1.6, 2.5))["factor"] == 1.6
    assert _turn(points(1.0, 1.5, 1.05))["factor"] == 1.5
    assert _turn(points(1.0, 1.3, 2.0)) is None


def test_clusters_are_told_and_a_column_of_something_else_is_no_recipe():
    runs = [Run("", 1e7, 1e9, 6e16, 3.0, cluster=f"c{i // 2}") for i in range(8)]
    (said,) = _clustered([Recipe("a", runs[:4]), Recipe("b", runs[4:])])
    assert said.startswith("The 8 rows are 4 clusters")
    assert _clustered([Recipe("a", runs[::2])]) == []
    with pytest.raises(ValueError, match=r"holds 25 recipes in list, and 2 to 24 can be"):
        recipes_of([row for i in range(25) for row in rows(recipe=f"r{i}")], {})
