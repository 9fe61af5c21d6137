"""The analyses of studies of points, on planted runs whose answer is known."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import tukey_hsd

from sweeps.fit.options import FitOptions
from sweeps.kinds.points.branches import branch_steps
from sweeps.kinds.points.laws import data_constrained, power, recipes, samples, schedule
from sweeps.kinds.points.noise import components, noise_floor, seed_noise_of, spread_of
from sweeps.kinds.points.resolution import resolution
from sweeps.kinds.points.settings import settings
from sweeps.kinds.points.table import EXTRA, write_rows
from sweeps.kinds.points.transfer import transfer, vertex
from sweeps.study.answer import Finding, Row
from sweeps.study.results import COLUMNS

RNG = np.random.default_rng(7)


def row(**values: Any) -> Row:
    """Return a finished row; what is not given is empty."""
    plain: Row = dict.fromkeys((*COLUMNS, *EXTRA))
    plain |= {"name": f"run-{RNG.integers(1 << 40)}", "status": "finished", "excluded": 0,
              "reason": "", "phase": "grid", "arm": "", "params": 30_000, "width": 24,
              "epochs": 1.0, "clip_tokens": 100.0, "loss_noise_draws": 1e-4, "lr": 5e-3,
              "batch_tokens": 768, "budget": 1e11, "length": 1e11}  # fmt: skip
    return plain | values


def written(tmp_path: Path, rows: list[Row]) -> Path:
    write_rows(tmp_path / "runs.csv", rows)
    return tmp_path / "runs.csv"


# Noise.


def test_the_interval_of_a_deviation_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        groups = [1 + 0.01 * rng.standard_normal(3) for _ in range(3)]
        spread = spread_of([group.tolist() for group in groups], 0.9)
        assert spread is not None
        hits += spread.low <= 0.01 <= spread.high
    assert 0.86 <= hits / 400 <= 0.94  # standard error .015
    assert spread.degrees == 6
    assert spread_of([[1.0], [2.0]], 0.9) is None


def test_seeds_draws_and_both_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    seeds, draws = 0.02 * rng.standard_normal((400, 1)), 0.01 * rng.standard_normal((1, 400))
    found = components(1 + seeds + draws + 0.005 * rng.standard_normal((400, 400)))
    assert found["seeds"] == pytest.approx(0.02, rel=0.1)
    assert found["draws"] == pytest.approx(0.01, rel=0.1)
    assert found["both"] == pytest.approx(0.005, rel=0.02)


def test_the_noise_floor_names_its_degrees_and_what_two_runs_resolve() -> None:
    rows = [row(setting=str(c), budget=c, loss=0.5 * (1 + 0.01 * x))
            for c in (1e11, 4e11) for x in (-1, 0, 1)]  # fmt: skip
    draws = {r["name"]: [r["loss"] - 0.001, r["loss"] + 0.001] for r in rows}
    finding = noise_floor(rows, draws, 0.9)
    assert finding.numbers["relative"] == pytest.approx(0.01)
    assert finding.numbers["degrees"] == 4
    assert "4 degrees of freedom" in finding.answer
    assert "losses are 2.8 % apart" in finding.said[0]
    assert "1 % is the seed's, 0.28 % the validation noise's" in finding.said[1]
    assert "compatible with one value" in finding.said[-1]
    lone = noise_floor([row(setting="a", loss=0.5)], {}, 0.9)
    assert "unknown" in lone.answer


def test_repeats_give_the_noise_of_a_study_and_lost_runs_do_not_count() -> None:
    rows = [row(setting="a", loss=0.50), row(setting="a", loss=0.51, excluded=1),
            row(setting="a", loss=None, status="missing")]  # fmt: skip
    noise, spread = seed_noise_of(rows, 0.9)
    assert noise is not None
    assert spread is not None
    assert spread.degrees == 1
    assert noise.relative == pytest.approx(spread.relative)
    assert seed_noise_of(rows[:1], 0.9) == (None, None)


# Transfer of the learning rate.

RATES = [1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2]


def sweep(best: dict[int, float], noise: float = 0.0, bend: float = 0.05) -> list[Row]:
    """Return runs over rates whose best rate is known; two seeds at the middle."""
    rng, rows = np.random.default_rng(3), []
    for width, at in best.items():
        for lr in RATES:
            for seed in (0, 1) if lr == 5e-3 else (0,):
                loss = 0.3 * (1 + bend * math.log2(lr / at) ** 2 + noise * rng.standard_normal())
                rows.append(row(width=width, lr=lr, loss=loss, setting=f"{width} {lr}",
                                excluded=int(seed > 0)))  # fmt: skip
    return rows


def answer(rows: list[Row]) -> Finding:
    return transfer(rows, seed_noise_of(rows, 0.9)[1], 0.9, 400)


def test_a_rate_that_stays_transfers_and_one_that_falls_does_not() -> None:
    stays = answer(sweep({16: 5e-3, 32: 5.2e-3, 64: 4.8e-3, 128: 5e-3}, 1e-3))
    assert "it transfers within one step" in stays.answer
    assert abs(stays.numbers["drift_steps"]) < 0.2
    falls = answer(sweep({16: 1e-2, 32: 7e-3, 64: 4e-3, 128: 2.5e-3}, 1e-3))
    assert "it does not transfer" in falls.answer
    assert falls.numbers["drift_steps"] == pytest.approx(-2, abs=0.3)
    assert falls.numbers["steps_per_doubling"] == pytest.approx(-0.67, abs=0.15)
    assert falls.numbers["regret_percent"] > 5


def test_a_noisy_a_short_and_an_edgy_sweep_claim_nothing() -> None:
    noisy = answer(sweep({16: 5e-3, 128: 5e-3}, 0.08))
    assert "resolved" in noisy.answer or "at an edge" in noisy.answer
    short = answer(sweep({32: 5e-3, 64: 5e-3}, 1e-3))
    assert "too short to speak of transfer" in short.answer
    edge = answer(sweep({16: 5e-3, 128: 6e-4}, 1e-3))
    assert "fewer than two widths" in edge.answer
    assert any("is at an edge of those tried" in w for w in edge.warnings)


def test_the_vertex_of_a_parabola_is_found_and_an_edge_is_none() -> None:
    x = np.arange(5.0)
    assert vertex(x, (x - 2.3) ** 2) == pytest.approx(2.3)
    assert math.isnan(vertex(x, x))


# Resolution.


def grids(exponents: dict[str, float], noise: float) -> list[Row]:
    """Return isoFLOP grids of arms whose best size grows with a known exponent."""
    rng, rows = np.random.default_rng(5), []
    for arm, exponent in exponents.items():
        for flops in (1e11, 1e12, 1e13):
            best = 3e4 * (flops / 1e11) ** exponent
            for factor in (0.4, 0.7, 1.2, 2.0, 3.4):
                params = best * factor
                loss = 0.4 * (flops / 1e11) ** -0.1 * (1 + 0.03 * math.log(factor) ** 2)
                rows.append(row(arm=arm, length=flops, budget=flops, params=round(params),
                                flops=flops, tokens=flops / (6 * params),
                                loss=loss * (1 + noise * rng.standard_normal())))  # fmt: skip
    return rows


def test_exponents_of_arms_stand_side_by_side_and_differ_where_they_do() -> None:
    finding = resolution(grids({"long": 0.6, "short": 0.4}, 1e-4), None, 0.9, 300)
    assert "differ between long and short" in finding.answer
    assert finding.numbers["long"]["exponent"] == pytest.approx(0.6, abs=0.02)
    assert finding.numbers["short"]["exponent"] == pytest.approx(0.4, abs=0.02)
    same = resolution(grids({"long": 0.5, "short": 0.5}, 4e-3), None, 0.9, 300)
    assert "no difference that these runs resolve" in same.answer
    assert any("Set repeat.seeds" in warning for warning in same.warnings)


def test_an_arm_without_minima_is_named_and_nothing_is_compared() -> None:
    rows = grids({"long": 0.5}, 1e-4)
    rows += [r | {"arm": "short", "loss": 1 / r["params"]} for r in rows]
    finding = resolution(rows, None, 0.9, 100)
    assert "1 of 2 arms" in finding.answer
    assert any(
        w.startswith("short: the minimum at 1e+11 FLOPs is refused") for w in finding.warnings
    )


# Laws.


def test_a_planted_power_law_of_params_comes_back(tmp_path: Path) -> None:
    rows = [
        row(params=n, loss=0.2 + 8 * n**-0.5) for n in (16_000, 30_000, 60_000, 120_000, 250_000)
    ]
    finding = power(rows, written(tmp_path, rows), FitOptions(resamples=50))
    assert finding.laws["power"]["coefficients"]["alpha"] == pytest.approx(0.5, rel=1e-3)
    assert finding.laws["power"]["coefficients"]["E"] == pytest.approx(0.2, rel=1e-3)
    assert "alpha = 0.5" in finding.answer
    few = power(rows[:1], written(tmp_path, rows[:1]), FitOptions(resamples=50))
    assert any("No law power was fitted" in w for w in few.warnings)


def test_repeats_that_cost_are_reported_by_length(tmp_path: Path) -> None:
    rows = [row(length=4e6, tokens=4_000_000, unique_tokens=u, epochs=4e6 / u, loss=loss)
            for u, loss in ((4_000_000, 0.20), (400_000, 0.22), (100_000, 0.25))]  # fmt: skip
    finding = data_constrained(rows, written(tmp_path, rows), FitOptions(resamples=20))
    assert any("40.0 epochs of 100000 unique tokens end +25.00 %" in s for s in finding.said)
    assert any("No law data_constrained was fitted" in w for w in finding.warnings)


def test_planted_laws_of_rate_and_batch_come_back(tmp_path: Path) -> None:
    rows = []
    for params in (2e4, 8e4):
        for tokens in (1e6, 4e6, 1.6e7):
            best_lr = 5e-3 * (params / 4e4) ** -0.2 * (tokens / 4e6) ** -0.3
            best_batch = 2048 * (tokens / 4e6) ** 0.4
            for lr in np.geomspace(best_lr / 4.3, best_lr * 3.7, 5):
                for packs in (1, 2, 4, 8, 16):
                    batch = 512 * packs
                    off = math.log(lr / best_lr) ** 2 + math.log(batch / best_batch) ** 2
                    rows.append(row(params=round(params), tokens=tokens, asked_tokens=tokens,
                                    length=tokens, lr=float(lr), batch_tokens=batch,
                                    loss=0.3 * math.exp(0.02 * off)))  # fmt: skip
    finding = recipes(rows, written(tmp_path, rows), FitOptions(resamples=50))
    lr = finding.laws["lr"]["coefficients"]
    assert (lr["a"], lr["b"]) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.3, abs=0.02))
    assert finding.laws["batch"]["coefficients"]["b"] == pytest.approx(-0.4, abs=0.03)
    assert finding.answer.startswith("The best learning rate follows lr = c / (params^a tokens^b)")


def test_branches_say_what_they_saved_and_are_resampled_by_trunk(tmp_path: Path) -> None:
    rows = []
    for params in (16_000, 40_000, 100_000):
        rows.append(row(phase="trunk", excluded=1, params=params, loss=1.0, tokens=1e6,
                        flops=6e6 * params, spent_flops=6e6 * params))  # fmt: skip
        for tokens in (2.5e5, 5e5, 7.5e5, 1e6):
            loss = 0.1 + 4 * params**-0.4 + 9 * tokens**-0.3
            rows.append(row(phase="branch", params=params, tokens=tokens, length=tokens,
                            flops=6 * params * tokens, spent_flops=1.2 * params * tokens,
                            cluster=f"trunk-{params}", loss=loss))  # fmt: skip
    finding = schedule(rows, written(tmp_path, rows), FitOptions(resamples=30))
    assert finding.answer.startswith("12 points came from 3 long runs at 60 % of the compute")
    assert finding.laws["chinchilla"]["coefficients"]["alpha"] == pytest.approx(0.4, rel=0.05)


def test_branches_begin_where_their_decay_does() -> None:
    assert branch_steps(100, 3, 0.2) == [(100, 125), (200, 250), (300, 375)]


def test_the_ladder_of_samples_takes_the_best_of_each_length(tmp_path: Path) -> None:
    rows = [row(length=c, flops=c, loss=loss, tokens=1e5)
            for c, loss in ((1e12, 0.3), (1e11, 0.5), (1e11, 0.4))]  # fmt: skip
    finding = samples(rows, tmp_path, FitOptions(resamples=10))
    assert [entry["loss"] for entry in finding.tables["The ladder"]] == [0.4, 0.3]
    assert "from 0.4 to 0.3" in finding.answer


# Settings.


def chosen(name: str, length: float, losses: list[float]) -> list[Row]:
    """Return the runs of one setting, as a kind of run that counts steps has them."""
    group = json.dumps(["", [name], [], length])
    extra = {"axes": {"k": name}, "group": group, "setting": f"{name} {length}", "psnr": 20.0}
    rows = [row(loss=loss, length=length, seed=i, **extra) for i, loss in enumerate(losses)]
    return [{key: r[key] for key in r if key not in ("budget", "flops", "tokens")} for r in rows]


def test_differences_of_all_settings_at_once_are_those_of_tukey() -> None:
    rng = np.random.default_rng(5)
    losses = {name: 0.3 * m * np.exp(0.004 * rng.standard_normal(4))
              for name, m in (("a", 1.0), ("b", 1.004), ("c", 1.05))}  # fmt: skip
    rows = [r for name, values in losses.items() for r in chosen(name, 40, values.tolist())]
    finding = settings(rows, seed_noise_of(rows, 0.9)[1], 0.9, "steps")
    known = tukey_hsd(*(np.log(values) for values in losses.values())).confidence_interval(0.9)
    ranked = sorted(losses, key=lambda name: losses[name].mean())
    for found in finding.tables["Settings"][1:]:
        i, j = (list(losses).index(n) for n in (found["setting"].removeprefix("k="), ranked[0]))
        bounds = [100 * math.expm1(side[i, j]) for side in (known.low, known.high)]
        assert [found["low_percent"], found["high_percent"]] == pytest.approx(bounds, abs=0.02)
        assert found["psnr"] == 20.0
    assert finding.answer.startswith(
        f"At 40 steps the loss is least, {losses[ranked[0]].mean():.4g}"
    )
    assert "noise alone may part it from k=b" in finding.answer.replace("k=a", "k=b")
    assert "k=c" not in finding.answer


def test_settings_are_ranked_at_each_length_and_the_longest_answers() -> None:
    rows = [*chosen("a", 40, [0.50, 0.501]), *chosen("b", 40, [0.40, 0.401]),
            *chosen("a", 160, [0.30, 0.301]), *chosen("b", 160, [0.35, 0.351])]  # fmt: skip
    finding = settings(rows, seed_noise_of(rows, 0.9)[1], 0.9, "steps")
    assert "At 160 steps the loss is least, 0.3005, with k=a; k=b is 16.6 % above" in finding.answer
    assert "At 40 steps the loss is least, 0.4005, with k=b" in finding.said[0]
    assert finding.said[1] == (
        "From 40 to 160 steps the loss of k=a falls by 40 %; over all settings by 12.5 to 40 %."
    )
    assert [panel.title for panel in finding.panels] == [
        "Loss against length",
        "Every run at 160 steps",
    ]
    assert finding.numbers["best"] == "k=a"
    lone = settings(rows[::2], None, 0.9, "steps")
    assert "no difference can be told from noise" in lone.warnings[0]
    assert "in one seed" in lone.answer
    assert settings([], None, 0.9, "steps").answer == "No run finished."


def test_noise_and_powers_are_asked_of_runs_that_count_no_flops(tmp_path: Path) -> None:
    rows = []
    for size in (1000, 2000, 4000, 8000, 16000, 32000):
        losses = [x * (0.1 + size**-0.5) for x in (1.0, 1.001)]
        rows += [r | {"params": size} for r in chosen(str(size), 40, losses)]
    noise = seed_noise_of(rows, 0.9)[0]
    assert noise is not None
    finding = noise_floor(rows, {}, 0.9)
    assert finding.tables["Spread over seeds"][0]["steps"] == 40
    assert finding.panels[1].xlabel == "steps of a run"
    for one in rows:
        one["loss_noise"] = noise.relative * one["loss"]
    law = power(rows, written(tmp_path, rows), FitOptions(resamples=20)).laws["power"]
    assert law["coefficients"]["alpha"] == pytest.approx(0.5, abs=0.02)
    assert law["coefficients"]["E"] == pytest.approx(0.1, rel=0.05)
