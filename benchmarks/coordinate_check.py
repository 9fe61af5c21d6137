"""Coordinate check: do activations change as much in a wide or deep model as in a small one?

usage: python -m benchmarks.coordinate_check [--axis width] [--out FOLDER] [--seeds 3] [--steps 6]
                                             [--lr 5e-3] [--kind adamw]

A few steps of AdamW (or Muon, --kind muon) on a small pack at widths over an 8-fold range, by the
roles of models/roles.py (maximal update, stated at the smallest width), and with one rate for all
parameters, the control. For every part of the network the root mean square change of its output on
another pack since the start is told, and its power of the width. Under maximal update (Yang et al.
2022, appendix D.1) it is near 0: the change neither grows nor shrinks. In the control it must not
be, else the check could not fail. With --axis depth the same over an 8-fold depth, with residual
branches that count base_depth / depth (Dey et al. 2025) and, as the control, whole ones. Writes
coordinate_check.csv and coordinate_check.svg.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from statistics import fmean, linear_regression

import torch
from torch import Tensor, nn

from benchmarks.packs import build_sample, our_loss
from models.architecture import specification_of
from models.attention import attend_segments
from models.config import ModelConfig
from models.dit.model import DiT
from models.pack import Ragged
from trainer.layout.optimizer import OptimizerKind, orthogonal_names
from trainer.optim_config import OptimConfig
from trainer.parallel.engine import build_optimizer
from trainer.parallel.mesh import alone
from trainer.parallel.muon import HeldMuon, Matrix, Whole

BASE = ModelConfig(width=32, depth=2, head_dim=16, text_width=16, base_width=32)
WIDTHS = (32, 64, 128, 256)
CLIPS = [((2, 4, 6), 7), ((1, 4, 4), 0), ((3, 4, 4), 5)]  # latent grid, caption tokens
DEPTHS = (2, 4, 8, 16)
RULES = ("maximal update", "one rate for all")
DEPTH_RULES = ("branches by depth", "whole branches")
Changes = dict[str, list[float]]  # part of the network -> change after each step


@dataclass(frozen=True)
class Row:
    """The change of one part's output after one step, the geometric mean over seeds.

    size: the width, or the depth.
    """

    rule: str
    part: str
    step: int
    size: int
    change: float


def parts_of(model: DiT) -> dict[str, nn.Module]:
    """Return the parts whose outputs are watched; ``head`` is the network's output."""
    modules = dict(model.named_modules())
    names = ["patch_in", "caption_in", "condition", "modulation", "head_modulation", "head"]
    for number in range(len(model.blocks)):
        block = f"blocks.{number}"
        names += [block, *(f"{block}.{part}" for part in ("self_attention", "cross_attention"))]
        names.append(f"{block}.mlp")
    return {name: modules[name] for name in names} | {"last block": model.blocks[-1]}


class Watch:
    """A model whose parts' outputs, and attention's scores, are kept at each look."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.model = DiT(config, self._attend)
        self.model.reset_parameters(torch.Generator().manual_seed(seed))
        self._probe = build_sample(config, CLIPS, seed=2)
        self._seen: dict[str, list[Tensor]] = {}
        for name, part in parts_of(self.model).items():
            part.register_forward_hook(self._keep(name))

    def look(self) -> dict[str, Tensor]:
        """Return every part's output on the probe."""
        self._seen.clear()
        with torch.no_grad():
            our_loss(self.model, self._probe)
        return {name: torch.cat([o.flatten() for o in seen]) for name, seen in self._seen.items()}

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: object, output: Tensor) -> None:
            self._seen.setdefault(name, []).append(output.detach().clone())

        return hook

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, qs: Ragged, ks: Ragged) -> Tensor:
        kind = "self" if qs.lengths == ks.lengths else "cross"
        ours, theirs = q[: qs.lengths[0]].detach(), k[: ks.lengths[0]].detach()  # the first clip's
        scores = torch.einsum("sne,kne->nsk", ours, theirs) * q.shape[-1] ** -0.5
        self._seen.setdefault(f"scores of {kind}-attention", []).append(scores)
        return attend_segments(q, k, v, qs, ks)


def optimizer_of(model: DiT, config: ModelConfig, optim: OptimConfig) -> torch.optim.Optimizer:
    """Return the trainer's optimizer of a whole model, its rates set by the roles."""
    optimizer = build_optimizer(model, config, optim)
    for group in optimizer.param_groups:
        group["lr"] = optim.lr * group["lr_scale"]
    if isinstance(optimizer, HeldMuon):
        facts, names = specification_of(config), orthogonal_names(config, optim.kind)
        matrices = [Matrix(facts.shapes[n], facts.cuts.get(n)) for n in facts.shapes if n in names]
        optimizer.direct = Whole(matrices, alone(), torch.float32)
        for parameter in optimizer.param_groups[-1]["params"]:
            optimizer.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
    return optimizer


def changes(config: ModelConfig, optim: OptimConfig, steps: int, seed: int) -> Changes:
    """Train a few steps; return each part's root mean square change since the start."""
    watch = Watch(config, seed)
    model, sample = watch.model, build_sample(config, CLIPS, seed=1)
    optimizer = optimizer_of(model, config, optim)
    first = watch.look()
    found: Changes = {name: [] for name in first}
    for _ in range(steps):
        optimizer.zero_grad()
        our_loss(model, sample).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for name, output in watch.look().items():
            found[name].append(float((output - first[name]).square().mean().sqrt()))
    return found


def by_width(base: ModelConfig, rule: str, sizes: tuple[int, ...]) -> Iterator[ModelConfig]:
    """Yield the models of a rule over widths."""
    for width in sizes:
        base_width = sizes[0] if rule == RULES[0] else width
        yield replace(base, width=width, base_width=base_width)


def by_depth(base: ModelConfig, rule: str, sizes: tuple[int, ...]) -> Iterator[ModelConfig]:
    """Yield the models of a rule over depths."""
    options = {"base_depth": float(sizes[0])} if rule == DEPTH_RULES[0] else {}
    for depth in sizes:
        yield replace(base, depth=depth, options=options)


def measure(
    base: ModelConfig,
    sizes: tuple[int, ...],
    optim: OptimConfig,
    steps: int,
    seeds: int,
    rules: tuple[str, ...] = RULES,
) -> list[Row]:
    """Return the change of every part that all sizes have, by rule, step and size."""
    rows = []
    shapes = by_width if rules == RULES else by_depth
    for rule in rules:
        for size, config in zip(sizes, shapes(base, rule, sizes), strict=True):
            runs = [changes(config, optim, steps, seed) for seed in range(seeds)]
            for part in runs[0]:
                for step in range(steps):
                    values = [run[part][step] for run in runs]
                    mean = exp(fmean(map(log, values))) if min(values) > 0 else 0.0
                    rows.append(Row(rule, part, step + 1, size, mean))
            print(f"{rule}, size {size}", file=sys.stderr, flush=True)
    shared = {row.part for row in rows if row.size == min(sizes)}
    return [row for row in rows if row.part in shared]


def powers(rows: list[Row], rule: str, step: int) -> dict[str, float]:
    """Return part -> p of change ~ size^p after a step; parts that did not move are left out."""
    found = {}
    for part in dict.fromkeys(row.part for row in rows):
        chosen = [r for r in rows if (r.rule, r.part, r.step) == (rule, part, step)]
        if all(row.change > 0 for row in chosen):
            x, y = [log(row.size) for row in chosen], [log(row.change) for row in chosen]
            found[part] = linear_regression(x, y).slope
    return found


def print_table(rows: list[Row]) -> None:
    """Print each part's power of the width after the second and the last step."""
    steps = sorted({2, max(row.step for row in rows)})
    rules = list(dict.fromkeys(row.rule for row in rows))
    print("power of the size in the change of outputs, and the change at the ends of the range")
    print(f"{'part':<28}" + "".join(f"{f'{rule}, step {s}':>28}" for rule in rules for s in steps))
    for part in dict.fromkeys(row.part for row in rows):
        cells = []
        for rule in rules:
            for step in steps:
                mine = [r for r in rows if (r.part, r.rule, r.step) == (part, rule, step)]
                power = powers(rows, rule, step).get(part)
                ends = f"{mine[0].change:.3g} to {mine[-1].change:.3g}"
                cells.append("not moved yet" if power is None else f"{power:+.2f}  {ends}")
        print(f"{part:<28}" + "".join(f"{cell:>28}" for cell in cells))


def draw(rows: list[Row], path: Path) -> None:
    """Draw change over width after each step: a row of panels for each rule."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ("blocks.0.self_attention", "blocks.0.mlp", "last block", "head")
    rules = list(dict.fromkeys(row.rule for row in rows))
    figure, panels = plt.subplots(
        len(rules), len(shown), figsize=(11, 5.4), sharex=True, sharey="col", layout="constrained"
    )
    last = max(row.step for row in rows)
    for line, rule in zip(panels, rules, strict=True):
        for panel, part in zip(line, shown, strict=True):
            for step in range(2, last + 1):  # before the second, a zero head lets nothing move
                mine = [r for r in rows if (r.part, r.rule, r.step) == (part, rule, step)]
                colour = matplotlib.colormaps["viridis"](0.9 * (step - 2) / max(1, last - 2))
                x, y = [row.size for row in mine], [row.change for row in mine]
                panel.loglog(x, y, "o-", color=colour, markersize=3, label=f"step {step}")
            panel.set_title(f"{part}\n{rule}", fontsize=9)
            panel.set_xticks(x, [str(size) for size in x])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("depth" if DEPTH_RULES[0] in rules else "width")
    panels[0][0].legend(fontsize=7)
    figure.supylabel("rms change of the output since the start")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write_csv(rows: list[Row], path: Path) -> None:
    """Write every row."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rule", "part", "step", "size", "rms_change"])
        writer.writerows([r.rule, r.part, r.step, r.size, f"{r.change:.5g}"] for r in rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/coordinate_check"))
    parser.add_argument("--axis", choices=("width", "depth"), default="width")
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--kind", choices=list(OptimizerKind), default="adamw")
    found = parser.parse_args()
    try:
        found.widths = tuple(sorted(int(width) for width in found.widths.split(",")))
    except ValueError:
        parser.error(f"--widths={found.widths}: must be whole numbers. Use 32,64,128,256.")
    if len(set(found.widths)) < 2 or any(w < 16 or w % BASE.head_dim for w in found.widths):
        parser.error(f"--widths={found.widths}: need two multiples of 16. Use 32,64,128,256.")
    if min(found.seeds, found.steps - 1) < 1 or not found.lr > 0:
        parser.error("--seeds, --steps, --lr: must be at least 1, 2 and above 0. Use 3, 6, 5e-3.")
    return found


def main() -> None:
    """Measure, print the table, write the table and the picture."""
    asked = parse()
    torch.set_num_threads(1)
    over_depth = asked.axis == "depth"
    sizes, rules = (DEPTHS, DEPTH_RULES) if over_depth else (asked.widths, RULES)
    optim = OptimConfig(lr=asked.lr, beta2=0.95, kind=OptimizerKind(asked.kind))
    rows = measure(BASE, sizes, optim, asked.steps, asked.seeds, rules)
    print_table(rows)
    asked.out.mkdir(parents=True, exist_ok=True)
    write_csv(rows, asked.out / "coordinate_check.csv")
    draw(rows, asked.out / "coordinate_check.svg")
    print(f"wrote {asked.out}/coordinate_check.csv and .svg")


if __name__ == "__main__":
    main()
