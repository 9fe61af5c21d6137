"""Curves of runs, thinned until a page of hundreds of runs stays light."""

import math
from collections.abc import Sequence
from itertools import pairwise

from sweeps.report.inputs.histories import History, Series

PLACES = ("step", "tokens", "flops")
MEANS = ("train_loss", "grad_norm")  # of the steps that a point stands for
MOST_POINTS, LEAST_POINTS = 64, 12  # of a curve
POINTS_OF_A_STUDY = 6_000


def points_of_a_curve(num_runs: int) -> int:
    """Return how many points a curve keeps in a study of so many runs."""
    return max(LEAST_POINTS, min(MOST_POINTS, POINTS_OF_A_STUDY // max(num_runs, 1)))


def thinned(history: History, most: int) -> tuple[Series, Series]:
    """Return a run's values over training and its validations, each at most ``most`` points.

    Training loss and gradient norm are means over the steps between two points; throughput is
    tokens over seconds between them.
    """
    series = history.series
    length = len(series.get("step", []))
    checked = [i for i, loss in enumerate(series.get("loss", [])) if math.isfinite(loss)]
    trained = [i for i in range(length) if math.isfinite(_at(series, "train_loss", i))]
    checks = _pick(series, _ends(_parts(checked, most)), (*PLACES, "loss"))
    parts = _parts(trained, most)
    training = _pick(series, _ends(parts), (*PLACES, "lr"))
    for key in MEANS:
        if key in series:
            training[key] = [_mean([series[key][i] for i in part]) for part in parts]
    if "seconds" in series and "tokens" in series:
        training["tokens_per_second"] = _speeds(series, _ends(parts))
    return {k: v for k, v in training.items() if v}, checks


def was_thinned(histories: Sequence[History], most: int) -> bool:
    """Return whether any curve has more steps than points are kept."""
    return any(len(history.series.get("step", [])) > most for history in histories)


def _parts(places: Sequence[int], most: int) -> list[Sequence[int]]:
    """Return places in so many runs of neighbours of about one length."""
    count = min(most, len(places))
    cuts = [round(i * len(places) / count) for i in range(count + 1)] if count else [0]
    return [places[a:b] for a, b in pairwise(cuts)]


def _ends(parts: Sequence[Sequence[int]]) -> list[int]:
    return [part[-1] for part in parts]


def _at(series: Series, key: str, place: int) -> float:
    return series[key][place] if key in series else math.nan


def _pick(series: Series, places: Sequence[int], keys: Sequence[str]) -> Series:
    return {key: [series[key][i] for i in places] for key in keys if key in series}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _speeds(series: Series, places: Sequence[int]) -> list[float]:
    found, before = [], (0.0, 0.0)
    for i in places:
        now = series["tokens"][i], series["seconds"][i]
        took = now[1] - before[1]
        # A run that was resumed may begin its clock again: such a point says nothing.
        found.append((now[0] - before[0]) / took if took > 0 else math.nan)
        before = now
    return found
