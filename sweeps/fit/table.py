"""Fit a csv of runs: the door for tables that this stack did not write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.fit import diagnose
from sweeps.fit.forms import FlopsPerToken
from sweeps.fit.law import fit_law
from sweeps.fit.runs import Run


def fit_table(
    path: str | Path,
    *,
    form: str = "chinchilla",
    params: str = "params",
    tokens: str = "tokens",
    loss: str = "loss",
    flops: Sequence[float] = (),
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    delta: float = 1e-3,
    flops_of: FlopsPerToken | None = None,
) -> dict[str, Any]:
    """Fit a csv of runs and return the law's JSON as a dict; see `fit_law` for the options.

    `params`, `tokens` and `loss` name the columns. Optional columns: `name`, `flops` (6 N D when
    absent), `budget`, `loss_noise`, `cluster`, `excluded` (with `reason`).

    Raises:
        ValueError: naming the column, the line, the rule and the remedy.
    """
    if form != "chinchilla":
        raise ValueError(f"form={form}: is not known. Use chinchilla.")
    rows = diagnose.read_rows(Path(path), {"params": params, "tokens": tokens, "loss": loss})
    runs, excluded = [], []
    for line, row in enumerate(rows, start=2):
        name = row.get("name", "").strip() or f"line {line}"
        if diagnose.truth(row, "excluded", line):
            why = row.get("reason", "").strip() or "marked excluded in the table"
            excluded.append({"name": name, "reason": why})
        else:
            runs.append(_run(row, name, line))
    law = fit_law(
        runs, flops_of, flops=flops, level=level, resamples=resamples, seed=seed, delta=delta
    )
    return replace(law, excluded=excluded + law.excluded).to_dict()


def _run(row: dict[str, str], name: str, line: int) -> Run:
    """Return one csv row as a run."""
    params, tokens, loss = (diagnose.number(row, c, line) for c in ("params", "tokens", "loss"))

    def optional(column: str) -> float | None:
        return diagnose.number(row, column, line) if row.get(column, "").strip() else None

    return Run(
        name=name,
        params=params,
        tokens=tokens,
        flops=optional("flops") or 6 * params * tokens,
        loss=loss,
        loss_noise=optional("loss_noise"),
        cluster=row.get("cluster", "").strip() or None,
        budget=optional("budget"),
    )
