"""From a budget to an answer: optimum, buildable shape, recipe, layout, time and money."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from launch.planner.config import PlanConfig, SearchConfig
from launch.planner.machine import MachineConfig
from launch.planner.search import Candidate, Found, describe, search, step_tokens
from launch.planner.workload import plan_workload
from models.config import ModelConfig
from sweeps.fit.forms.base import Array, FlopsPerToken
from sweeps.fit.minima.frontier import frontier_point
from sweeps.fit.result import Law
from sweeps.fit.trust.bootstrap import percentile_interval, prediction_draws
from sweeps.ladder.shapes import Rung, shape_for
from sweeps.predict.source import Source
from sweeps.study.clips import Clips
from sweeps.study.recipe import Recipe, recipe_for, rounding_warnings
from sweeps.study.spec import NO_HORIZON
from trainer.config import RunConfig, compose_run
from trainer.diffusion.horizon import Clip, flops_per_token, some_of
from trainer.layout.config import Precision

DEFAULT_MFU = 0.4  # .38 to .43 on up to 16,384 H100 in bf16 (Llama 3, Grattafiori et al. 2024)
# Up to the held-out test's factor beyond its runs a law was tested; published laws were used some
# ten times further (Hoffmann et al. 2022: 1e22 fitted, 6e23 predicted); the rest is arithmetic.
USUAL, FAR = 10.0, 100.0
MFU_DIFFERS = 0.1
LADDER = tuple(float(f) for f in np.geomspace(0.2, 5, 7))  # sizes around N* whose cost is exact


@dataclass(frozen=True)
class Budget:
    """Devices for so many days; flops: those times the peak and the share of it that trains."""

    flops: float
    gpus: int
    days: float
    machine: str
    precision: str
    mfu: float


@dataclass(frozen=True)
class Answer:
    """All that is said of a budget; `to_dict` is its JSON."""

    parts: dict[str, Any]
    notes: list[str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return self.parts | {"notes": self.notes, "warnings": self.warnings}


def reach_of(law: Law, flops: float) -> tuple[float, float | None, str]:
    """Return how far beyond the runs a budget lies, how far was tested, and that in words."""
    factor = flops / max(run.flops for run in law.runs)
    tested = law.held_out.extrapolation_factor if law.held_out else None
    if factor <= 1:
        return factor, tested, "Within the compute of the study's runs."
    said = f"{factor:.3g}x beyond the study's largest run"
    if tested and factor <= tested:
        how = "its held-out test reached as far"
    elif factor <= USUAL * (tested or 1.0):
        how = f"its held-out test reached {tested:.3g}x" if tested else "there is no held-out test"
    elif factor <= FAR * (tested or 1.0):
        how = "FAR: an order of magnitude further than was tested; take it as a guess"
    else:
        how = (
            "TOO FAR: nothing says that the law holds there. What follows is arithmetic with its "
            "formula, no forecast"
        )
    return factor, tested, f"{said}; {how}."


def refuse_too_far(source: Source, law: Law, budget: Budget) -> None:
    """Raise ValueError for a budget that lies further out than any law was tried."""
    factor, tested, _ = reach_of(law, budget.flops)
    if factor > FAR * (tested or 1.0):
        reach = f"tested to {tested:.3g}x" if tested else "not tested beyond them"
        raise ValueError(
            f"gpus={budget.gpus} days={budget.days:g}: are {budget.flops:.3g} FLOPs, {factor:.2g} "
            f"times the largest run of study={source.name}, whose law is {reach}: nothing says "
            "that it holds there. Run a study that ends within 10x of the budget; far=true "
            "shows the arithmetic all the same."
        )


def answer(
    source: Source, law: Law, budget: Budget, machine: MachineConfig, overrides: Sequence[str]
) -> Answer:
    """Return what a budget buys.

    Raises:
        ValueError: a setting cannot be, or no shape is near the optimum.
    """
    run = compose_run([*source.base, *overrides, *NO_HORIZON, "horizon.steps=1"])
    clips = Clips()
    cost = ladder_cost(law.at(budget.flops).params, run, clips.of(run))
    largest = max(r.flops for r in law.runs)
    point = frontier_point(law.fit, law.bootstrap, budget.flops, cost, largest)
    if not point.interior:
        raise ValueError(
            f"study={source.name}: its law has no best size at {budget.flops:.3g} FLOPs: loss "
            "falls to the end of the sizes searched. See its warnings with sweeps.fit."
        )
    rung = shape_for(point.params, run.model)
    run.model = _shaped(run, rung)
    tokens = budget.flops / flops_per_token(run, some_of(clips.of(run)))
    at = {"params": np.array([float(rung.params)]), "tokens": np.array([tokens])}
    loss = float(law.fit.predict(at)[0])
    draws = prediction_draws(law.fit, law.bootstrap, at)[:, 0]
    recipe = recipe_for(source.recipe, tokens, rung, run.model.base_width)
    factor, tested, words = reach_of(law, budget.flops)
    layout, more = _layout(run, machine, budget, recipe, tokens)
    device_hours = budget.gpus * budget.days * 24
    parts = {
        "budget": vars(budget),
        "law": {
            "study": source.name, "table": str(source.table), "form": law.fit.form.name,
            "runs": len(law.runs), "largest_flops": largest,
            "extrapolation_factor": factor, "tested_factor": tested, "reach": words,
            "level": law.bootstrap.level,
        },
        "optimum": {
            "params": point.params, "tokens": point.tokens, "loss": point.loss,
            "intervals": point.intervals,
        },
        "shape": {
            "width": rung.width, "depth": rung.depth, "head_dim": rung.head_dim,
            "params": rung.params, "tokens": tokens, "loss": loss,
            "interval": percentile_interval(draws, law.bootstrap.level),
            "loss_cost": loss / point.loss - 1,
        },
        "recipe": _recipe(recipe, run, tokens),
        "layout": layout,
        "cost": {
            "device_hours": device_hours, "hours": 24 * budget.days,
            "money": machine.money(device_hours), "currency": machine.price.currency,
            "price_as_of": machine.price.as_of, "price_source": machine.price.source,
            "kilowatt_hours": machine.kilowatt_hours(device_hours),
        },
    }  # fmt: skip
    rounding = [f"{c.text}." for c in rounding_warnings(recipe, tokens, rung, point.params)]
    warnings = [*rounding, *more, *(w for w in law.warnings if "The frontier at" not in w)]
    return Answer(parts, [*source.notes, *clips.notes], warnings)


def ladder_cost(middle: float, run: RunConfig, infos: Sequence[Clip]) -> FlopsPerToken:
    """Return exact FLOPs a token at the ladder's rungs around a size, log-log between them.

    The runs' own costs would have to be continued far beyond their sizes, where shapes change.
    """
    sizes: dict[int, float] = {}
    for factor in LADDER:
        rung = shape_for(middle * factor, run.model)
        shaped = replace(run, model=_shaped(run, rung))
        sizes[rung.params] = flops_per_token(shaped, some_of(infos))
    x = np.log(sorted(sizes))
    y = np.log([sizes[n] for n in sorted(sizes)])

    def cost(params: Array) -> Array:
        at = np.log(params)
        outside = np.minimum(at - x[0], 0) + np.maximum(at - x[-1], 0)  # 6 N beyond the rungs
        return np.asarray(np.exp(np.interp(at, x, y) + outside))

    return cost


def _shaped(run: RunConfig, rung: Rung) -> ModelConfig:
    return replace(run.model, width=rung.width, depth=rung.depth, head_dim=rung.head_dim)


def _recipe(recipe: Recipe, run: RunConfig, tokens: float) -> dict[str, Any]:
    warmup = run.optim.warmup if recipe.warmup is None else recipe.warmup
    return {
        "lr": recipe.lr, "batch_tokens": recipe.batch_tokens, "steps": recipe.steps(tokens),
        "warmup_share": warmup, "warmup_steps": round(warmup * recipe.steps(tokens)),
        "decay_share": run.optim.decay,
        "weight_decay": run.optim.weight_decay
        if recipe.weight_decay is None
        else recipe.weight_decay,
        "overrides": recipe.overrides(),
    }  # fmt: skip


def _layout(
    run: RunConfig, machine: MachineConfig, budget: Budget, recipe: Recipe, tokens: float
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the planner's best layout with its time for the whole run, and what to say of it."""
    settings = SearchConfig(gpus=budget.gpus, top=1, precision=Precision(budget.precision))
    run.data.pack_tokens, run.data.packs_per_step = recipe.pack_tokens, recipe.packs_per_step
    batch = step_tokens(run, settings)
    said = []
    if abs(batch / recipe.batch_tokens - 1) > 0.1:
        said.append(
            f"The recipe's batch of {recipe.batch_tokens:,} tokens cannot feed {budget.gpus} "
            f"devices: the layout is for {batch:,.0f} tokens a step. The learning rate was not "
            "fitted at that batch; run a study that reaches it."
        )
    workload = plan_workload(run, PlanConfig(clip_tokens=_clip_tokens(run, batch, settings)))
    found = search(run.model, machine, workload.clips, settings, batch)
    if not found.best:
        said.append(_no_layout(found, budget))
        return None, said
    best = found.best[0]
    seconds = best.time.total * tokens / batch
    days = seconds / 86400
    if abs(days / budget.days - 1) > MFU_DIFFERS:
        said.append(
            f"The planner expects {days:.3g} days for these tokens, not {budget.days:g}: in its "
            f"model this layout reaches {100 * budget.mfu * budget.days / days:.2g} % of the peak, "
            f"where mfu={budget.mfu:.3g} was taken. Give that share as mfu= to plan with it."
        )
    return _layout_dict(best, batch, seconds), said


def _clip_tokens(run: RunConfig, batch: float, settings: SearchConfig) -> int:
    """Return the tokens of a typical clip, no longer than a device's share of a step."""
    cell = run.cell
    clip = Clips().of(run)[0]
    frames = 1 + (clip.num_frames - 1) // cell[0]
    return max(1, min(frames * (clip.height // cell[1]) * (clip.width // cell[2]),
                      int(batch / settings.gpus)))  # fmt: skip


def _layout_dict(best: Candidate, batch: float, seconds: float) -> dict[str, Any]:
    return {
        "words": describe(best), "overrides": best.overrides(), "batch_tokens": batch,
        "step_seconds": best.time.total, "days": seconds / 86400,
        "memory_bytes": best.memory.total,
    }  # fmt: skip


def _no_layout(found: Found, budget: Budget) -> str:
    why = "; ".join(f"{group.reason} ({group.closest})" for group in found.losers[:2])
    return (
        f"No layout of {budget.gpus} {budget.machine} holds this model"
        f"{': ' + why if why else ''}. Use more devices, or a budget for a smaller model."
    )
