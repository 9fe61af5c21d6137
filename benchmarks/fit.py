"""The fitter against published fits: python -m benchmarks.fit [name ...]

Prints one row for each bar: what is published, what is found here, whether the bar is reached, and
CPU seconds on one core. Names: epoch speed gemstones porian openlm datablations curves dit
steplaw exact coverage forecast foreseen recipes.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks import fit_data, fit_forecast, fit_recipes
from sweeps.fit.forms.catalogue import CHINCHILLA, FORMS
from sweeps.fit.general import fit_or_reduce
from sweeps.fit.law import fit_table
from sweeps.fit.minima.recipe import joint_recipe
from sweeps.fit.minima.splines import spline_law
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.schedules import chosen_by_schedule, error_of_curves
from sweeps.fit.optimum.solve import Fit, fit_form
from sweeps.fit.options import FitOptions
from sweeps.fit.trust.bootstrap import bootstrap_fit, coefficient_intervals, prediction_draws
from sweeps.fit.trust.identified import identified

EPOCH = {"E": 1.81724, "A": 477.84, "alpha": 0.34731, "B": 2143.86, "beta": 0.36718}
EPOCH_OBJECTIVE = 1.0182740181e-3
EPOCH_INTERVALS = {
    "A": (285.0, 744.0), "E": (1.769, 1.871), "alpha": (0.317, 0.373), "beta": (0.331, 0.415),
}  # fmt: skip
SEED_NOISE = 0.002  # of a RefinedWeb run's loss, as Porian et al. 2024 take it
MUENNIGHOFF = {
    "A": float(np.exp(6.255414)), "B": float(np.exp(7.3049974)), "E": float(np.exp(0.6254804)),
    "alpha": 0.3526596, "beta": 0.3526596,
}  # fmt: skip
MUENNIGHOFF_OBJECTIVE = 0.0158259
OPENLM_ERRORS = {"1.4B": 0.7103, "6.9B": 0.7320}  # percent
CURVES_MAE = {"25M": 0.00376, "100M": 0.00435}
CURVE_FORMS = [FORMS[name] for name in FORMS["curves"].choices]
PLANTED = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


@dataclass(frozen=True)
class Bar:
    """One row of the table; `reached` is None where nothing is asked."""

    name: str
    published: str
    found: str
    reached: bool | None
    seconds: float


def timed(work: Callable[[], Fit]) -> tuple[Fit, float]:
    """Return the result of `work` and its CPU seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def epoch_bars() -> Iterator[Bar]:
    """Besiroglu et al. 2024: coefficients, objective, bootstrap intervals, speed."""
    columns, loss = fit_data.epoch()
    fit, seconds = timed(lambda: fit_form(CHINCHILLA, columns, loss))
    off = max(abs(fit.coefficients[k] / v - 1) for k, v in EPOCH.items())
    yield Bar("epoch: coefficients", "within .1 %", f"{100 * off:.3f} %", off <= 1e-3, seconds)
    found = f"{fit.objective:.13e}"
    reached = fit.objective <= EPOCH_OBJECTIVE
    yield Bar("epoch: objective", f"{EPOCH_OBJECTIVE:.10e}", found, reached, seconds)
    agree = f"{fit.starts_agreeing} of {fit.starts_tried}"
    yield Bar("epoch: starts that agree", "8.5 % of 4,500", agree, None, seconds)
    yield Bar("epoch: seconds of a fit", ".25", f"{seconds:.2f}", seconds <= 0.25, seconds)
    started = time.process_time()
    boot = bootstrap_fit(fit, range(len(loss)), 4000, 0.95)
    seconds = time.process_time() - started
    intervals = coefficient_intervals(fit, boot)
    for name, (low, high) in EPOCH_INTERVALS.items():
        ends = intervals[name]
        off = max(abs(ends[0] - low), abs(ends[1] - high)) / (high - low)
        said = f"{ends[0]:.4g} to {ends[1]:.4g}: {100 * off:.1f} % of the width"
        yield Bar(f"epoch: interval of {name}", f"{low} to {high}", said, off <= 0.05, seconds)
    yield Bar("epoch: seconds of 4,000", "5", f"{seconds:.2f}", seconds <= 5, seconds)


def speed_bars() -> Iterator[Bar]:
    """A whole answer of an isoFLOP table of 133 runs (Llama 3), with 1,000 resamples."""
    path = fit_data.REFERENCE / "forecast" / "isoflop" / "iso_extract_llama_3__exp_loss.csv"
    fit_table(path, options=FitOptions(resamples=1))  # imports
    for form, words, bar in (
        ("chinchilla", "one form", 1.5),
        ("auto", "every form, rolling origin", 6.0),
    ):
        started = time.process_time()
        fit_table(path, form)
        seconds = time.process_time() - started
        yield Bar(f"isoflop: seconds, {words}", f"{bar}", f"{seconds:.2f}", seconds <= bar, seconds)


def gemstones_bars() -> Iterator[Bar]:
    """McLeish et al. 2025: all 20 objectives."""
    for name, form, columns, loss, published in fit_data.gemstones():
        used = {c: columns[c] for c in FORMS[form].columns}
        fit, seconds = timed(lambda f=form, u=used, y=loss: fit_form(FORMS[f], u, y))
        reached = fit.objective <= published
        if form == "width_depth_params" and len(loss) == 770:
            reached = reached and seconds <= 3
        said = f"{fit.objective:.10f} ({fit.starts_agreeing}/{fit.starts_tried} starts)"
        yield Bar(f"gemstones: {form} {name}", f"{published:.10f}", said, reached, seconds)


def porian_bars() -> Iterator[Bar]:
    """Porian et al. 2024: ten exponents of N* and their intervals, by splines."""
    for reference, tables in fit_data.porian():
        started = time.process_time()
        law = spline_law(tables, SEED_NOISE)
        seconds = time.process_time() - started
        a, low, high = (float(reference[k]) for k in ("a", "a_lo95", "a_hi95"))
        off = max(abs(law.interval[0] - low), abs(law.interval[1] - high))
        reached = abs(law.exponent - a) <= 0.002 and off <= 0.01
        said = f"{law.exponent:.4f} [{law.interval[0]:.4f}, {law.interval[1]:.4f}]"
        name = " ".join(reference[k] for k in ("hparams", "warmup", "decay", "param_count"))
        yield Bar(f"porian: {name}", f"{a:.4f} [{low:.4f}, {high:.4f}]", said, reached, seconds)


def openlm_bars() -> Iterator[Bar]:
    """Gadre et al. 2024: two large losses from five small runs."""
    columns, loss, large = fit_data.openlm()
    fit, seconds = timed(lambda: fit_form(FORMS["overtraining"], columns, loss))
    for name, there, actual in large:
        off = 100 * abs(fit.predict(there)[0] / actual - 1)
        reached = round(off, 4) <= OPENLM_ERRORS[name]
        yield Bar(f"openlm: {name}", f"{OPENLM_ERRORS[name]} %", f"{off:.4f} %", reached, seconds)


def datablations_bars() -> Iterator[Bar]:
    """Muennighoff et al. 2023: a lower optimum, and R_D* flagged."""
    columns, loss = fit_data.datablations()
    form = FORMS["data_constrained"]
    fit, seconds = timed(lambda: fit_form(form, columns, loss, FitOptions(fixed=MUENNIGHOFF)))
    fit, profiles = certify(fit, 0.95)
    found = f"{fit.objective:.7f}"
    reached = fit.objective <= MUENNIGHOFF_OBJECTIVE
    yield Bar("datablations: objective", f"{MUENNIGHOFF_OBJECTIVE}", found, reached, seconds)
    boot = bootstrap_fit(fit, range(len(loss)), 200, 0.95)
    verdicts = identified(fit, boot, profiles)
    for name, published in (("R_D_star", 15.39), ("R_N_star", 5.31)):
        low, high = coefficient_intervals(fit, boot)[name]
        flag = "identified" if verdicts[name]["ok"] else "NOT identified"
        said = f"{fit.coefficients[name]:.4g} [{low:.3g}, {high:.3g}]: {flag}"
        flagged = not verdicts[name]["ok"] if name == "R_D_star" else None
        yield Bar(f"datablations: {name}", f"{published}", said, flagged, seconds)


def curves_bars() -> Iterator[Bar]:
    """Luo et al. 2025: six schedules predicted from three, for models of 25M and 100M."""
    tables = {
        "25M": (fit_data.curves_of_25("train"), fit_data.curves_of_25("test")),
        "100M": (fit_data.curves(fit_data.TRAINED), fit_data.curves(fit_data.HELD_OUT)),
    }
    for size, (train, held) in tables.items():
        published, chosen = CURVES_MAE[size], chosen_by_schedule(CURVE_FORMS, *train)
        for form in CURVE_FORMS:
            fit, seconds = timed(lambda f=form, t=train: fit_or_reduce(f, *t)[0])
            error = fit.predict(held[0]) - held[1]
            names = [str(c) for c in held[0]["curve"]]
            mae = float(np.mean(list(error_of_curves(names, error).values())))
            wall = f", {', '.join(fit.at_bound)} on the wall" if fit.at_bound else ""
            said = f"{fit.form.name}: MAE {mae:.5f}{wall}"
            taken = form.name == chosen.form.name
            name = f"curves: {size} {form.name}" + ", by left-out curves" * taken
            yield Bar(name, f"MAE {published}", said, mae <= published if taken else None, seconds)


def dit_bars() -> Iterator[Bar]:
    """Peebles and Xie 2023: FID falls with Gflops."""
    columns, fid = fit_data.dit()
    fit, seconds = timed(lambda: fit_form(FORMS["quality_no_floor"], columns, fid))
    found = float(np.corrcoef(np.log(columns["flops"]), fid)[0, 1])
    said = f"{found:.3f}, FID falls as C^-{fit.coefficients['alpha']:.2f}"
    yield Bar("dit: correlation", "-.93", said, round(found, 2) == -0.93, seconds)


def grid(budgets: int, sizes: int) -> tuple[fit_data.Columns, fit_data.Array]:
    """Return a ladder of budgets times sizes and the planted law's losses."""
    middle = np.geomspace(5e7, 2e9, budgets)[:, None]
    params = (middle * np.geomspace(0.25, 4, sizes)).ravel()
    tokens = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes) / 6 / params
    v = PLANTED
    loss = v["E"] + v["A"] / params ** v["alpha"] + v["B"] / tokens ** v["beta"]
    return {"params": params, "tokens": tokens}, loss


def steplaw_bars() -> Iterator[Bar]:
    """Li et al. 2025: what a learning-rate and batch law costs on the grid, each point left out."""
    columns = fit_data.steplaw()
    started = time.process_time()
    found = joint_recipe({"lr": FORMS["lr"], "batch": FORMS["batch"]}, columns)
    seconds = time.process_time() - started
    assert found is not None
    mean, worst = found["regret"]["mean"], found["regret"]["worst"]
    said = f"{100 * mean:.3f} % (worst {100 * worst:.2f} %)"
    yield Bar("steplaw: regret, point left out", ".09 % (not left out)", said, None, seconds)
    lr, batch = (found[knob]["coefficients"] for knob in ("lr", "batch"))
    said = f"lr N^{-lr['a']:.3f} D^{-lr['b']:.3f}, batch D^{-batch['b']:.3f}"
    yield Bar("steplaw: exponents", "lr N^-.712 D^.307, batch D^.571", said, None, seconds)


def exact_bars() -> Iterator[Bar]:
    """Noise-free recovery of a planted law."""
    columns, loss = grid(5, 5)
    fit, seconds = timed(lambda: fit_form(CHINCHILLA, columns, loss))
    off = max(abs(fit.coefficients[k] / v - 1) for k, v in PLANTED.items())
    yield Bar("exact data: coefficients", "1e-10", f"{off:.1e}", off <= 1e-10, seconds)


def coverage(replicates: int = 200, resamples: int = 200, noise: float = 0.005) -> dict[str, float]:
    """Return how often 95 % intervals hold the planted coefficients and a loss 8x beyond the runs.

    Ten budgets times ten sizes, log-normal noise; one bootstrap a replicate.
    """
    columns, truth = grid(10, 10)
    there = {"params": np.array([8e9]), "tokens": np.array([1.6e11])}
    v = PLANTED
    beyond = v["E"] + v["A"] / 8e9 ** v["alpha"] + v["B"] / 1.6e11 ** v["beta"]
    inside = dict.fromkeys([*v, "loss beyond"], 0)
    for seed in range(replicates):
        draw = np.random.default_rng(seed).standard_normal(len(truth))
        fit = fit_form(CHINCHILLA, columns, truth * np.exp(noise * draw), max_starts=4)
        boot = bootstrap_fit(fit, range(len(truth)), resamples, 0.95, seed)
        for name, (low, high) in coefficient_intervals(fit, boot).items():
            inside[name] += low <= v[name] <= high
        low, high = np.percentile(prediction_draws(fit, boot, there), [2.5, 97.5])
        inside["loss beyond"] += low <= beyond <= high
    return {name: count / replicates for name, count in inside.items()}


def coverage_bars() -> Iterator[Bar]:
    """Coverage of 95 % intervals over 200 synthetic replicates."""
    started = time.process_time()
    found = coverage()
    seconds = time.process_time() - started
    for name, share in found.items():
        said, reached = f"{100 * share:.1f} %", 0.92 <= share <= 0.98
        yield Bar(f"coverage: {name}", "92 to 98 %", said, reached, seconds)


def forecast_bars() -> Iterator[Bar]:
    """Every upper budget of the real isoFLOP tables, foreseen by the default and the others."""
    started = time.process_time()
    found: dict[str, list[tuple[float, float]]] = {}
    inside: list[bool] = []
    for _, runs in fit_forecast.isoflop_tables():
        for method, error, beyond, held in fit_forecast.forecast_errors(runs):
            found.setdefault(method, []).append((error, beyond))
            inside += [held] * (held is not None)
    seconds = time.process_time() - started
    mean = {m: float(np.mean(np.abs([e for e, _ in rows]))) for m, rows in found.items()}
    others = [m for m in mean if m != "the default"]
    for method in sorted(others, key=mean.__getitem__):
        rows = found[method]
        near = [abs(e) for e, beyond in rows if beyond < 2.1]
        bias = 100 * float(np.mean([e for e, _ in rows]))
        said = f"{100 * mean[method]:.2f} % of {len(rows)}, bias {bias:+.2f} %, next budget "
        said += f"{100 * float(np.mean(near)):.2f} %"
        yield Bar(f"forecast: {method}", "", said, None, seconds)
    default = mean["the default"]
    best = min(mean[m] for m in others if m != "nearby")
    said = f"{100 * default:.2f} % of {len(found['the default'])}"
    reached = default <= min(0.01, best)
    yield Bar(
        "forecast: the default", f"1 %, {100 * best:.2f} % (best other)", said, reached, seconds
    )
    share = float(np.mean(inside))
    said, reached = f"{100 * share:.0f} %", 0.85 <= share <= 0.95
    yield Bar("forecast: 90 % intervals hold", "85 to 95 %", said, reached, seconds)


def foreseen_bars() -> Iterator[Bar]:
    """Coverage of the default's 90 % intervals over synthetic tables of two laws, 200 each."""
    laws = {"a form's": fit_forecast.additive, "no form's": fit_forecast.fading}
    tables = {"": fit_forecast.planted, ", no budgets": fit_forecast.scattered}
    for name, law, table in (
        (words + more, law, table) for more, table in tables.items() for words, law in laws.items()
    ):
        started = time.process_time()
        share, error = fit_forecast.coverage_of_forecasts(law, table=table)
        seconds = time.process_time() - started
        said, reached = (
            f"{100 * share:.1f} %, mean error {100 * error:.2f} %",
            0.88 <= share <= 0.96,
        )
        yield Bar(f"foreseen: true law is {name}", "88 to 96 %", said, reached, seconds)


def recipes_bars() -> Iterator[Bar]:
    """Coverage of what a recipe is worth in compute, over 200 synthetic tables of two recipes."""
    started = time.process_time()
    found = fit_recipes.coverage_of_multipliers()
    seconds = time.process_time() - started
    for name, share, said in (
        ("one multiplier", found.constant, f", median width {100 * (found.width - 1):.1f} %"),
        ("both ends of one that grows", found.ends, ""),
    ):
        shown = f"{100 * share:.1f} %{said}"
        yield Bar(f"recipes: {name}", "85 to 96 %", shown, 0.85 <= share <= 0.96, seconds)
    told = f"{100 * found.same_of_scaled:.1f} %; where it grows {100 * found.same_of_apart:.1f} %"
    yield Bar("recipes: one multiplier said where true", "95 %", told, None, seconds)


GROUPS: dict[str, Callable[[], Iterator[Bar]]] = {
    "epoch": epoch_bars,
    "gemstones": gemstones_bars,
    "porian": porian_bars,
    "openlm": openlm_bars,
    "datablations": datablations_bars,
    "curves": curves_bars,
    "dit": dit_bars,
    "steplaw": steplaw_bars,
    "exact": exact_bars,
    "coverage": coverage_bars,
    "forecast": forecast_bars,
    "foreseen": foreseen_bars,
    "recipes": recipes_bars,
    "speed": speed_bars,
}


def main(names: list[str]) -> int:
    """Print the table of the named groups (all of them without names)."""
    if unknown := [n for n in names if n not in GROUPS]:
        print(f"{unknown[0]}: is not known. Use {', '.join(GROUPS)}.", file=sys.stderr)
        return 2
    print(f"{'bar':<60}{'asked':<34}{'found':<62}{'':<8}CPU s")
    missed = 0
    for name in names or list(GROUPS):
        if name not in ("exact", "coverage", "foreseen", "recipes") and not fit_data.present():
            print(f"{name}: skipped, {fit_data.ABSENT}")
            continue
        for bar in GROUPS[name]():
            verdict = {True: "ok", False: "MISSED", None: ""}[bar.reached]
            missed += bar.reached is False
            print(f"{bar.name:<60}{bar.published:<34}{bar.found:<62}{verdict:<8}{bar.seconds:.2f}")
    print(f"{missed} missed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
