"""Tables of others with a fault: each is named or refused, and a clean one is left in peace."""

import csv

import numpy as np
import pytest

from benchmarks import fit_data
from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.law import fit_law, fit_table, law_of_table
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.rows.points import points_of
from sweeps.fit.rows.runs import Run, best_loss, clusters_of, group_budgets, noise_floor
from sweeps.fit.trust.checkpoints import warn_checkpoints
from sweeps.fit.trust.structure import warn_structure

FEW = FitOptions(resamples=10)


def truth(params, tokens):
    return 1.82 + 482.0 / params**0.348 + 2085.0 / tokens**0.366


def isoflop(noise=0.002, budgets=5, sizes=7, seed=3):
    """Return (params, tokens, flops, loss) of an isoFLOP table, `(budgets x sizes,)` each."""
    flops = np.repeat(1e18 * 10 ** (0.5 * np.arange(budgets)), sizes)
    params = 0.09 * flops**0.5 * np.tile(np.geomspace(0.25, 4.0, sizes), budgets)
    tokens = flops / (6 * params)
    draw = np.random.default_rng(seed).standard_normal(len(flops))
    return params, tokens, flops, truth(params, tokens) * np.exp(noise * draw)


def rows_of(params, tokens, flops, loss):
    columns = {"params": params, "tokens": tokens, "flops": flops, "loss": loss}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def warnings_of(*columns):
    return law_of_table(rows_of(*columns), options=FEW).warnings


def structure(params, tokens, loss, clusters=None):
    """Return what is said of the residuals of the law of these rows."""
    fit = fit_form(CHINCHILLA, {"params": params, "tokens": tokens}, loss)
    axes = {"budget": 6 * params * tokens, "size": params, "length": tokens}
    return list(warn_structure(fit, axes, clusters or range(len(loss))))


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_clean_table_is_told_nothing_but_how_far_it_reaches():
    said = [w for w in warnings_of(*isoflop()) if "beyond the largest fitted run" not in w]
    assert [w for w in said if "minimum" not in w] == []


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda n, d, c, y: (n, d / 1e9, c, y), "1e+09 times 6 N D (params or tokens is in billi"),
        (lambda n, d, c, y: (n, np.where(c < 2e18, d / 1e9, d), c, y), "in billions there"),
        (lambda n, d, c, y: (n, d, np.where(np.arange(35) == 9, 10 * c, c), y), "row 10 (60)"),
        (lambda n, d, c, y: (n, d, c / 2, y), "FLOPs are 0.5 times 6 N D (counted otherwise)"),
        (lambda n, d, c, y: (n, d, c * (1 + (2e8 / n) ** 0.5), y), "times 6 N D (counted"),
        (lambda n, d, c, y: (n, d, c, np.exp(y)), "is it a perplexity"),
    ],
    ids=["tokens in billions", "some in billions", "one row", "all rows", "by size", "perplexity"],
)
def test_a_column_in_another_unit_is_named_first(spoil, said):
    warnings = warnings_of(*spoil(*isoflop()))
    assert said in warnings[0]
    assert not any("look swapped" in w for w in warnings)
    assert sum("6 N D" in w for w in warnings) <= 1


@pytest.mark.heavy
def test_flops_within_a_factor_of_one_and_a_half_are_not_questioned():
    params, tokens, flops, loss = isoflop()
    assert not any("6 N D" in w for w in warnings_of(params, tokens, 1.45 * flops, loss))


@pytest.mark.heavy
def test_flops_that_are_not_those_of_their_budget_are_named():
    params, tokens, flops, loss = isoflop()
    runs = [
        Run(f"r{i}", n, d, c, y, budget=c if i else 2 * c)
        for i, (n, d, c, y) in enumerate(zip(params, tokens, flops, loss, strict=True))
    ]
    assert any("of 1 of 35 runs are not those of their budget: r0 (0.5 times)" in w
               for w in fit_law(runs, options=FEW).warnings)  # fmt: skip


def test_unique_tokens_and_tokens_that_are_swapped_are_refused():
    params, unique, _, loss = isoflop()
    tokens = unique * np.tile([1, 2, 4, 8, 2], 7)
    rows = [
        {"params": n, "tokens": d, "unique_tokens": u, "loss": y}
        for n, d, u, y in zip(params, tokens, unique, loss, strict=True)
    ]
    swap = {"tokens": "unique_tokens", "unique_tokens": "tokens"}
    with pytest.raises(ValueError, match=r"More unique tokens than tokens: 28 runs, as if swapped"):
        fit_table(rows, "data_constrained", FEW, columns=swap)


# --- structure ------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_noise_alone_has_no_structure():
    """Of 12 clean tables none: one in 300 would be told something by chance."""
    for seed in range(12):
        params, tokens, _, loss = isoflop(seed=seed)
        assert structure(params, tokens, loss) == [], seed


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (lambda c: np.where(c > 2e19, 0.97, 1.0), "The law steps by -"),
        (lambda c: np.where(c < 5e18, 1 / np.log(2), 1.0), "Losses below 1e+19 FLOPs are 1.4"),
        (lambda c: np.where(np.arange(len(c)) % 2, 1.02, 1.0), "in two groups: 17 of 35 runs lie "),
    ],
    ids=["step", "bits", "undecayed"],
)
def test_one_cause_is_said_alone(factor, said):
    params, tokens, flops, loss = isoflop()
    (found,) = structure(params, tokens, loss * factor(flops))
    assert found.startswith(said) or said in found


def test_a_law_that_bends_is_said_to_where_it_does():
    params, tokens, flops, loss = isoflop(budgets=8, noise=5e-4)
    bent = loss * np.maximum(1.0, flops / 1e20) ** -0.03
    (found,) = structure(params, tokens, bent)
    assert found.startswith("The law bends near ")
    assert 3e19 < float(found.split()[4]) < 4e20


def test_sizes_that_lean_or_scatter_are_named():
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(3e7, 3e9, 7), [6e9, 2e10, 6e10]))
    rng = np.random.default_rng(1)
    loss = truth(params, tokens) * np.exp(0.001 * rng.standard_normal(21))
    assert structure(params, tokens, loss) == []
    (found,) = structure(params, tokens, np.where(params > 2e9, 1.05, 1.0) * loss)
    assert "structure by size (F = " in found
    untuned = np.where(params < 1e8, 1 + 0.04 * rng.random(21), 1.0)
    assert any("parameters scatter by" in w for w in structure(params, tokens, untuned * loss))


def test_rows_of_few_clusters_are_not_counted_as_many():
    """Six runs with an offset each: 150 rows, and no structure by size beyond the six."""
    params, tokens, loss = checkpoints(offset=0.004)
    assert any("by size" in w for w in structure(params, tokens, loss))
    assert structure(params, tokens, loss, params.tolist()) == []


# --- rows of one run ------------------------------------------------------------------------------


def checkpoints(offset, sizes=6, lengths=25):
    params, tokens = (
        x.ravel()
        for x in np.meshgrid(
            np.geomspace(3e7, 3e9, sizes), np.geomspace(1e9, 6e10, lengths), indexing="ij"
        )
    )
    rng = np.random.default_rng(7)
    of_run = np.repeat(offset * rng.standard_normal(sizes), lengths)
    noise = of_run + 0.001 * rng.standard_normal(sizes * lengths)
    return params, tokens, truth(params, tokens) * np.exp(noise)


def test_checkpoints_of_one_run_are_noticed_and_runs_of_their_own_are_not():
    for offset, sizes, lengths, noticed in ((0.004, 6, 25, True), (0.0, 5, 9, False)):
        params, tokens, loss = checkpoints(offset, sizes, lengths)
        fit = fit_form(CHINCHILLA, {"params": params, "tokens": tokens}, loss)
        said = list(warn_checkpoints(fit, range(len(loss))))
        assert bool(said) == noticed
        assert all("columns.cluster=params" in w for w in said)
        assert list(warn_checkpoints(fit, params.tolist())) == []


def test_checkpoints_are_clusters_and_seeds_of_a_point_pool():
    params, tokens, loss = checkpoints(0.004)
    runs = [
        Run(f"r{i}", n, d, 6 * n * d, y, cluster=f"{n:.3g}")
        for i, (n, d, y) in enumerate(zip(params, tokens, loss, strict=True))
    ]
    assert len(set(clusters_of(runs))) == 6
    assert noise_floor(runs) is None  # along a run loss falls: that is no noise
    assert best_loss(runs) == min(loss)
    seeds = [Run(f"s{i}", 1e8 * (1 + 1e-4 * i), 1e9, 6e17, 3 + 0.01 * i) for i in range(2)]
    apart = [Run("a", 1e8, 1.01e9, 6.06e17, 3.0), Run("b", 1.01e8, 1e9, 6.06e17, 2.9)]
    assert clusters_of([*seeds, *apart]) == [0, 0, 2, 3]
    assert noise_floor(seeds) == pytest.approx(np.std(np.log([3, 3.01]), ddof=1))
    assert best_loss(seeds) == pytest.approx(3.005)
    twice = [seeds[0], Run("again", 1e8, 1e9, 6e17, 3.0)]
    assert noise_floor(twice) is None  # one run, entered twice


def test_points_are_equal_to_one_in_ten_thousand_whatever_their_digits():
    rng = np.random.default_rng(0)
    base = 10 ** rng.uniform(6, 10, (300, 2))
    near = base * (1 + 1e-4 * rng.uniform(-1, 1, (300, 2)))
    columns = [np.concatenate([base[:, i], near[:, i], 1.002 * base[:, i]]) for i in range(2)]
    found = points_of(columns)
    assert found[300:600] == found[:300] == list(range(300))
    assert len(set(found[600:])) == 300
    assert not set(found[600:]) & set(found[:300])


def test_a_grid_of_sizes_by_lengths_has_no_budgets():
    lengths = np.array([6, 12, 20, 32, 48, 80, 120, 200, 320]) * 1e9
    grid = [
        Run("", n, d, 6 * n * d, 3.0) for n in 5e7 * 1.7 ** np.arange(5) for d in lengths
    ]  # fmt: skip
    assert group_budgets(grid) == []
    params, tokens, flops, loss = isoflop()
    rows = zip(params, tokens, flops, loss, strict=True)
    assert len(group_budgets([Run("", *row) for row in rows])) == 5


# --- the tables beside the checkout ---------------------------------------------------------------

HONESTY = fit_data.REFERENCE / "forecast" / "honesty"
NAMED = {
    "below_E": "line 12 (-53 %)",
    "bits_small": "as if they were in bits",
    "broken_slope": "The law bends near",
    "broken_step": "The law steps by",
    "ckpts": "checkpoints of one run a size",
    "ckpts_cluster": "The 150 runs are 6 clusters",
    "ckpts_cluster_outlier": "line 62 (+20 %)",
    "clean": "",
    "edge": "refused: the best size is at the largest end",
    "flops_10x": "line 2 (60)",
    "flops_3nd": "0.5 times 6 N D",
    "mixed_units": "in billions there",
    "nd_grid": "a grid of 5 sizes and 9 lengths",
    "near_dups": "taken as seeds of one point",
    "ppl": "perplexity",
    "tokens_billions": "in billions",
    "undecayed": "in two groups: 17 of 35",
}


@pytest.mark.heavy
@pytest.mark.skipif(not HONESTY.is_dir(), reason=fit_data.ABSENT)
@pytest.mark.parametrize("name", sorted(NAMED))
def test_each_table_of_the_collection_is_named(name):
    warnings = law_of_table(HONESTY / f"{name}.csv", options=FEW).warnings
    assert any(NAMED[name] in w for w in warnings) or not NAMED[name]
    if name in ("clean", "nd_grid", "near_dups", "edge"):
        assert not [w for w in warnings if "structure" in w or "6 N D" in w or "scatter" in w]


@pytest.mark.skipif(not HONESTY.is_dir(), reason=fit_data.ABSENT)
def test_undertuned_rungs_are_named():
    with (HONESTY.parent / "undertuned_like.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    params, tokens, loss = (
        np.array([row[c] for row in rows]) for c in ("params", "tokens", "loss")
    )
    assert any("sizes were not tuned alike" in w for w in structure(params, tokens, loss))
