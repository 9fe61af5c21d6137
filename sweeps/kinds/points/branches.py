"""Trunks and their decay branches: many points from one long run.

A branch that decays over the last share ``decay`` of its length T begins at step N = (1 - decay) T
of its trunk. Trunk and branches warm up over the same steps, so that every branch is what a run of
its own length would have been (trainer/diffusion/branch.py).
"""

from dataclasses import replace
from math import ceil

from sweeps.kinds.points.plan import Point, PointsPlan
from sweeps.study.spec import Phase, Spec


def branch_steps(every: int, count: int, decay: float) -> list[tuple[int, int]]:
    """Return (step where it begins, length) of every branch."""
    return [(every * k, ceil(every * k / (1 - decay))) for k in range(1, count + 1)]


def as_trunk(plan: PointsPlan, point: Point) -> Point:
    """Return a point as a trunk: constant rate, and a checkpoint kept at every branch."""
    branches = plan.study.branches
    total = branches.every * branches.count
    warmup = _warmup_steps(plan, point) / total
    schedule = [
        f"optim.warmup={warmup:.9g}", "optim.decay=0", "checkpoint.seconds=0",
        f"checkpoint.steps={branches.every}", f"checkpoint.keep={branches.count + 1}",
    ]  # fmt: skip
    return replace(point, spec=replace(point.spec, overrides=[*point.spec.overrides, *schedule]))


def branches_of(plan: PointsPlan, trunk: Point) -> list[Point]:
    """Return the branches of a trunk."""
    branches, found = plan.study.branches, []
    folder = plan.folder(trunk.spec)
    for start, length in branch_steps(branches.every, branches.count, branches.decay):
        share = length / (branches.every * branches.count)
        overrides = [
            *(o for o in trunk.spec.overrides if not o.startswith(("horizon.", "optim.warmup=",
              "optim.decay=", "checkpoint."))),
            f"horizon.steps={length}",
            f"optim.warmup={_warmup_steps(plan, trunk) / length:.9g}",
            f"optim.decay={1 - start / length:.9g}",
            f"branch.run={folder}",
            f"branch.step={start}",
        ]  # fmt: skip
        name, budget = f"{trunk.spec.name}-b{length}", trunk.spec.budget * share
        spec = Spec(name, Phase.branch, budget, overrides, trunk.arm)
        found.append(
            replace(trunk, spec=spec, length=float(length), tokens=trunk.tokens * share,
                    cluster=trunk.spec.name)
        )  # fmt: skip
    return found


def _warmup_steps(plan: PointsPlan, point: Point) -> float:
    """Return the steps of warm-up: the base's share of the shortest branch."""
    branches = plan.study.branches
    shortest = branch_steps(branches.every, 1, branches.decay)[0][1]
    own = plan.transformer(replace(point.spec, overrides=[
        o for o in point.spec.overrides if not o.startswith(("optim.warmup=", "optim.decay="))
    ]))  # fmt: skip
    return own.optim.warmup * shortest
