"""The noise floor: how much the loss of one setting differs from seed to seed.

The deviation of n runs has n - 1 degrees of freedom, so its interval is that of chi-square,

    s sqrt((n - 1) / q_high) <= sigma <= s sqrt((n - 1) / q_low),

and relative deviations of several settings are pooled by their degrees of freedom. Where every run
was measured again under other validation noise, its losses make a table of seeds x draws, whose
mean squares tell the variance over seeds, over draws, and of both together apart (two-way random
effects; Searle, Casella and McCulloch 1992, section 4.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.study.answer import Finding, Panel, Row, Series, grouped, included
from sweeps.study.results import SeedNoise

RESOLVED = 2.77  # 1.96 sqrt(2): two runs that differ by so many deviations differ at 95 %
SAME_SPREAD = 0.05  # below this p the relative spread is not the same at all settings


@dataclass(frozen=True)
class Spread:
    """A relative standard deviation with its interval and degrees of freedom."""

    relative: float
    low: float
    high: float
    degrees: int


def spread_of(groups: Sequence[Sequence[float]], level: float) -> Spread | None:
    """Pool the relative deviations of groups of losses; None without a group of two."""
    squares, degrees = 0.0, 0
    for losses in groups:
        if len(losses) > 1:
            values = np.asarray(losses)
            squares += (len(values) - 1) * float(values.var(ddof=1)) / float(values.mean()) ** 2
            degrees += len(values) - 1
    if not degrees:
        return None
    from scipy.stats import chi2  # half a second that planning a study does not need

    tails = chi2.ppf([(1 + level) / 2, (1 - level) / 2], degrees)
    low, high = (math.sqrt(squares / q) for q in tails)
    return Spread(math.sqrt(squares / degrees), low, high, degrees)


def seed_noise_of(rows: Sequence[Row], level: float) -> tuple[SeedNoise | None, Spread | None]:
    """Return the spread over seeds of all finished rows of one setting, pooled, two ways."""
    finished = [row for row in rows if row["loss"] is not None and row["status"] == "finished"]
    spread = spread_of([[r["loss"] for r in g] for g in grouped(finished, "setting").values()],
                       level)  # fmt: skip
    if spread is None:
        return None, None
    return SeedNoise(1.0, spread.relative, spread.degrees + 1, []), spread


def components(table: np.ndarray) -> dict[str, float]:
    """Return the deviations over seeds, over draws and of both together of (seeds, draws)."""
    seeds, draws = table.shape
    by_seed, by_draw = table.mean(1), table.mean(0)
    rest = table - by_seed[:, None] - by_draw[None, :] + table.mean()
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (draws - 1))
    of_seed = draws * float(by_seed.var(ddof=1)) - ms_rest
    of_draw = seeds * float(by_draw.var(ddof=1)) - ms_rest
    return {
        "seeds": math.sqrt(max(of_seed / draws, 0.0)),
        "draws": math.sqrt(max(of_draw / seeds, 0.0)),
        "both": math.sqrt(ms_rest),
    }


def noise_floor(rows: Sequence[Row], draws: dict[str, list[float]], level: float) -> Finding:
    """Answer how far apart two runs of one setting lie; ``draws``: losses of a run under noises."""
    groups = {k: g for k, g in grouped(included(rows), "setting").items() if len(g) > 1}
    pooled = spread_of([[r["loss"] for r in g] for g in groups.values()], level)
    if pooled is None:
        return Finding("No setting has two finished seeds: the noise floor is unknown.")
    tables = [_row(group, draws, level) for group in groups.values()]
    least = 100 * RESOLVED * pooled.relative
    said = [
        f"Two single runs differ at 95 % only if their losses are {least:.2g} % apart; means of "
        f"three seeds each, {least / math.sqrt(3):.2g} %.",
    ]
    said += _draws_said(tables)
    warnings = []
    if min(len(g) for g in groups.values()) < 5:
        warnings.append(
            f"{pooled.degrees} degrees of freedom in all: the interval of a deviation is wide, and "
            "rests on losses being normal over seeds."
        )
    if len(groups) > 1:
        from scipy.stats import bartlett

        p = float(bartlett(*(np.log([r["loss"] for r in g]) for g in groups.values())).pvalue)
        verdict = "differ between settings" if p < SAME_SPREAD else "are compatible with one value"
        said.append(f"The relative spreads {verdict} (Bartlett's test, p = {p:.2g}).")
    return Finding(
        answer=(
            f"Two seeds of one setting differ by {100 * pooled.relative:.2g} % in loss (standard "
            f"deviation; {100 * level:.0f} % interval {100 * pooled.low:.2g} to "
            f"{100 * pooled.high:.2g} %, {pooled.degrees} degrees of freedom)."
        ),
        said=said,
        warnings=warnings,
        tables={"Spread over seeds": tables},
        panels=_panels(groups, tables),
        numbers={
            "relative": pooled.relative, "low": pooled.low, "high": pooled.high,
            "degrees": pooled.degrees, "resolves": RESOLVED * pooled.relative,
        },
    )  # fmt: skip


def _row(group: Sequence[Row], draws: dict[str, list[float]], level: float) -> Row:
    losses = np.array([r["loss"] for r in group])
    spread = spread_of([losses.tolist()], level)
    assert spread is not None
    own = [r["loss_noise_draws"] for r in group if r["loss_noise_draws"] is not None]
    name, size = size_of(group[0])
    row: Row = {
        name: size, "params": group[0]["params"], "seeds": len(group),
        "mean_loss": float(losses.mean()), "std": float(losses.std(ddof=1)),
        "std_percent": 100 * spread.relative, "low_percent": 100 * spread.low,
        "high_percent": 100 * spread.high,
        "stated_noise_of_draws": float(np.sqrt(np.mean(np.square(own)))) if own else math.nan,
    }  # fmt: skip
    measured = [draws[r["name"]] for r in group if r["name"] in draws]
    if len(measured) > 1 and len({len(m) for m in measured}) == 1 and len(measured[0]) > 1:
        found = components(np.array(measured))
        row |= {f"std_of_{name}": value for name, value in found.items()}
        row["noises"] = len(measured[0])
    return row


def size_of(row: Row) -> tuple[str, float]:
    """Return what a run's length is counted in, flops or steps, and how long it was asked to be."""
    return ("flops", row["budget"]) if "budget" in row else ("steps", row["length"])


def _draws_said(tables: Sequence[Row]) -> list[str]:
    measured = [row for row in tables if "std_of_seeds" in row]
    if not measured:
        return []

    def relative(name: str) -> float:
        return 100 * math.sqrt(np.mean([(r[f"std_of_{name}"] / r["mean_loss"]) ** 2
                                        for r in measured]))  # fmt: skip

    return [
        f"Apart from each other: {relative('seeds'):.2g} % is the seed's, {relative('draws'):.2g} "
        f"% the validation noise's, which runs that share validation.noise_seed have in common, "
        f"and {relative('both'):.2g} % of both together."
    ]


def _panels(groups: dict[str, list[Row]], tables: Sequence[Row]) -> list[Panel]:
    name = size_of(next(iter(groups.values()))[0])[0]
    unit = "FLOPs" if name == "flops" else name
    shown = [
        Series(
            f"{len(group)} seeds",
            [100 * (r["loss"] / row["mean_loss"] - 1) for r in group],
            [row[name]] * len(group),
            colour=number,
        )
        for number, (group, row) in enumerate(zip(groups.values(), tables, strict=True))
    ]
    spread = Series(
        "over seeds",
        [row[name] for row in tables],
        [row["std_percent"] for row in tables],
        [row["low_percent"] for row in tables],
        [row["high_percent"] for row in tables],
    )
    series = [spread]
    if all("std_of_draws" in row for row in tables):
        values = [100 * row["std_of_draws"] / row["mean_loss"] for row in tables]
        series.append(Series("over validation noise", spread.x, values, colour=1))
    return [
        Panel("Every run", "loss minus the mean of its setting (%)", f"{unit} of a run", shown,
              xlog=False),
        Panel("Spread", f"{unit} of a run", "standard deviation (% of the loss)", series),
    ]  # fmt: skip
