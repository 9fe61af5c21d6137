"""Predicted against published speed of whole stacks, each stack left out of the calibration.

usage: python -m benchmarks.plan_stacks [--json FILE]

The rows lie beside the checkout (`plan/published_rows.csv` of the reference data). Stacks with
PyTorch's own kernels are predicted by the one constant of such kernels, their share of the peak in
attention, fitted to the rows of the others (Automodel's row is benchmarks/plan_speed.yaml's).
Stacks with a vendor's kernels are predicted by constants fitted to the rows of
benchmarks/plan_speed.yaml without those of the same stack. All else is launch/conf/machine.
"""

import argparse
import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from benchmarks.fit_data import ABSENT, REFERENCE
from benchmarks.plan_speed import calibrate, read_rows
from launch.planner.machine import EfficiencyConfig, MachineConfig, load_machine
from launch.planner.network import Network
from launch.planner.speed import Batch, Execution, step_time, training_flops

FILE = REFERENCE.parent / "plan" / "published_rows.csv"
BAR = 0.15
MACHINES = {
    "A100 80GB": "a100", "H100 SXM": "h100", "H200": "h200", "B200": "b200",
    "GB200 NVL72": "gb200", "GB300": "gb300",
}  # fmt: skip
# Whether a stack's attention is a vendor's, by the first word of its name.
FUSED = {
    "Megatron-LM": True,
    "NeMo": True,
    "torchtitan": False,
    "llm-foundry": False,
    "Automodel": False,
}
VOCABULARY = {"GPT": 51200, "Llama": 128256, "MPT": 50368, "Wan": 0}
# Elementwise traffic of a language model's block in units of its width, as for Megatron's rows.
TRAFFIC, WAN_TRAFFIC, CAPTION = 45.0, 77.0, 512.0
# Share of blocks' products that run again, and of elementwise kernels. torchtitan's selection saves
# every other product.
AGAIN = {
    "full": (1.0, 1.0), "none": (0.0, 0.0), "none (its recipe)": (0.0, 0.0),
    "selective operators": (0.5, 1.0), "8 of 40 blocks": (0.2, 0.2),
}  # fmt: skip
AUTOMODEL = "Wan 14B, 37k, FSDP on 64 H100 (Automodel)"


@dataclass(frozen=True)
class Published:
    """A published speed of a stack: what ran, and the seconds of a step that it took."""

    stack: str
    name: str
    machine: MachineConfig
    network: Network
    how: Execution
    batch: Batch
    seconds: float

    @property
    def family(self) -> str:
        """The stack without its version."""
        return self.stack.split()[0]

    def predict(self, **constants: float) -> float:
        """Return the seconds of a step, by a machine of these shares."""
        efficiency = replace(self.machine.efficiency, **constants)
        machine = replace(self.machine, efficiency=efficiency)
        return step_time(self.network, machine, self.how, self.batch).total


def read(path: Path = FILE) -> list[Published]:
    """Read the rows; ValueError names a machine or a recomputation that is not known here."""
    with path.open(newline="") as file:
        return [_read(row) for row in csv.DictReader(file)]


def _read(row: dict[str, str]) -> Published:
    known = (("machine", MACHINES), ("recompute", AGAIN))
    for key, choices in known:
        if row[key] not in choices:
            raise ValueError(f"{key}={row[key]}: unknown. Allowed: {', '.join(choices)}.")
    model, family = row["model"].split()[0], row["stack"].split()[0]
    network = Network.published(
        layers=int(row["layers"]),
        width=int(row["width"]),
        hidden=int(row["hidden"]),
        params=float(row["params"].removesuffix("B")) * 1e9,
        mlp_matrices=3 if model == "Llama" else 2,
        kv_width=int(row["kv_width"] or 0),
        cross=model == "Wan",
        causal=row["causal"] == "1",
        outside=float(row["width"]) * VOCABULARY[model],
        traffic=WAN_TRAFFIC if model == "Wan" else TRAFFIC,
    )
    again, elementwise = AGAIN[row["recompute"]]
    sharding = row["zero_or_fsdp"]
    how = Execution(
        tp=int(row["tp"]),
        pp=int(row["pp"]),
        cp=int(row["cp"]),
        dp=int(row["dp"]),
        zero_stage=3 if "fsdp" in sharding else int(sharding != "0"),
        again=again,
        elementwise_again=elementwise,
        tuned=True,
        fused=FUSED[family],
    )
    length, sequences = float(row["tokens_a_sequence"]), float(row["sequences_a_device"] or 1)
    micros = int(row["micro_batches"] or int(row["global_batch_sequences"] or 1) // how.dp)
    caption = CAPTION if model == "Wan" else 0.0
    batch = Batch(length * sequences, length, sequences, caption, micros)
    seconds = _seconds(row, network, how, batch)
    name = f"{row['model']}, {length:,.0f} x {sequences:.0f}, {row['gpus']} {row['machine']}"
    return Published(
        row["stack"], name, load_machine(MACHINES[row["machine"]]), network, how, batch, seconds
    )


def _seconds(row: dict[str, str], network: Network, how: Execution, batch: Batch) -> float:
    """Return the seconds of a step, whatever its source counts."""
    tokens = batch.tokens * batch.micros * how.dp
    if row["tokens_per_second_per_gpu"]:
        return tokens / how.devices / float(row["tokens_per_second_per_gpu"])
    flops = training_flops(network, batch.tokens, batch.segment, batch.caption)
    flops *= batch.micros * how.dp
    if row["counting"].startswith("96 B s L D^2"):  # Narayanan et al. 2021, equation 3
        D, L, s = network.width, network.layers, batch.segment
        flops = 96 * tokens * L * D * D * (1 + s / (6 * D) + VOCABULARY["GPT"] / (16 * L * D))
    return flops / how.devices / (1e12 * float(row["tflops_per_gpu"]))


def automodel() -> Published:
    """Return the row of PyTorch's kernels that benchmarks/plan_speed.yaml holds."""
    (row,) = (r for r in read_rows() if r.name == AUTOMODEL)
    tokens = row.batch.tokens * row.batch.micros * row.how.dp
    seconds = row.counted * tokens / row.how.devices / row.measured
    return Published("Automodel", row.name, row.machine, row.network, row.how, row.batch, seconds)


def attention_share(rows: Sequence[Published]) -> float:
    """Fit the share of the peak that PyTorch's attention kernels reach, by robust log ratios."""

    def residuals(point: Sequence[float]) -> list[float]:
        return [math.log(row.predict(attention=float(point[0])) / row.seconds) for row in rows]

    found = least_squares(residuals, [0.3], bounds=([0.05], [1.0]), loss="soft_l1", f_scale=0.1)
    return float(found.x[0])


def fused_shares(machine: str, stack: str) -> EfficiencyConfig:
    """Return a machine's shares by the rows of plan_speed.yaml, without those of a stack."""
    mine = "Wan" if stack == "NeMo" else "-"  # the rows of NeMo's DFM
    rows = [r for r in read_rows() if r.is_fitted and r.machine.name == machine]
    return calibrate([r for r in rows if not r.name.startswith(mine)])


def errors(rows: Sequence[Published]) -> list[tuple[Published, float]]:
    """Return every row with the error of its predicted speed, its stack left out."""
    own_kernels = [row for row in rows if not row.how.fused]
    found = []
    for family in dict.fromkeys(row.family for row in rows):
        mine = [row for row in rows if row.family == family]
        if mine[0].how.fused:
            lent = "a100" if mine[0].machine.name == "a100" else "h100"
            shares = fused_shares(lent, family)
            constants = {"matmul": shares.matmul}
            if lent == "h100":
                constants["fused_attention"] = shares.fused_attention
        else:
            share = attention_share([row for row in own_kernels if row.family != family])
            constants = {"attention": share}
        found += [(row, row.seconds / row.predict(**constants) - 1) for row in mine]
    return found


def main() -> None:
    """Print every row's error and the share of rows within the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if not FILE.is_file():
        print(f"plan_stacks: skipped, {ABSENT}.")
        return
    rows = [*read(), automodel()]
    found = errors(rows)
    table = Table(title="error of the predicted speed, the row's stack left out")
    for column in ("stack", "run", "error"):
        table.add_column(column, justify="right" if column == "error" else "left")
    for row, error in found:
        table.add_row(row.stack, row.name, f"{error:+.1%}{'' if abs(error) <= BAR else ' *'}")
    console = Console()
    console.print(table)
    sizes = np.abs([error for _, error in found])
    console.print(
        f"within {BAR:.0%}: {np.mean(sizes <= BAR):.0%} of {len(sizes)} rows, "
        f"median {np.median(sizes):.1%}, worst {sizes.max():.1%}"
    )
    share = attention_share([row for row in rows if not row.how.fused])
    console.print(
        f"h100: attention {share:.3f} fitted to all rows of PyTorch's kernels; "
        f"conf/machine/h100.yaml says {load_machine('h100').efficiency.attention:g}"
    )
    if arguments.json:
        figures = [{"stack": r.stack, "run": r.name, "error": e} for r, e in found]
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
