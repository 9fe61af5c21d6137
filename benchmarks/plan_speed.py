"""Predicted against published speed of training, each prediction without its own figure.

usage: python -m benchmarks.plan_speed [--json FILE]

Two constants of a kind of machine are calibrated: the shares of its peak that matrix products and
a vendor's attention kernels sustain (launch/planner/machine.py). Every row marked ``fit`` is
predicted by constants fitted to the other such rows of its machine; the rest by constants fitted to
all of them. Its other constants (half_width, memory, link, hidden, exposed, causal) are fixed. What
a source does not say is listed as assumed. Rows, sources and conventions:
benchmarks/plan_speed.yaml. Rows of other stacks, stack by stack: benchmarks/plan_stacks.py.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from launch.planner.machine import EfficiencyConfig, MachineConfig, load_machine
from launch.planner.network import Network
from launch.planner.speed import Batch, Execution, step_time, training_flops

ROWS = Path(__file__).with_suffix(".yaml")
CONSTANTS = ("matmul", "fused_attention")
LEND = {
    "b200": "h100",
    "gb200": "h100",
    "gb300": "h100",
}  # machines without fitted rows take another's shares


@dataclass(frozen=True)
class Row:
    """A published speed. counted, measured: FLOPs of a token as its source counts, FLOP/s."""

    name: str
    machine: MachineConfig
    network: Network
    how: Execution
    batch: Batch
    counted: float
    measured: float
    tokens_per_second: float | None
    is_fitted: bool
    assumed: str
    reason: str

    def predict(self, efficiency: EfficiencyConfig) -> float:
        """Return FLOP/s of a device, counted as the source does."""
        machine = replace(self.machine, efficiency=efficiency)
        seconds = step_time(self.network, machine, self.how, self.batch).total
        tokens = self.batch.tokens * self.batch.micros * self.how.dp
        return self.counted * tokens / self.how.devices / seconds


def read_rows(path: Path = ROWS) -> list[Row]:
    """Read published rows."""
    return [read_row(row) for row in yaml.safe_load(path.read_text())["rows"]]


def read_row(row: dict[str, Any]) -> Row:
    """Build one row; a segment fills its pack unless told otherwise."""
    network = Network.published(**_numbers(row["network"]))
    how = Execution(**{"tuned": True, "fused": True} | _numbers(row["execution"]))
    batch = Batch(**_numbers(row["batch"]))
    batch = replace(batch, segments=batch.tokens / batch.segment)
    machine = load_machine(row["machine"])
    if row["counted"] == "params":
        wide = 12 * network.layers * network.width * batch.segment
        counted = 6 * network.params + wide
    else:
        counted = training_flops(network, batch.tokens, batch.segment, batch.caption)
        counted /= batch.tokens
    return Row(
        name=row["name"],
        machine=machine,
        network=network,
        how=how,
        batch=batch,
        counted=counted,
        measured=1e12 * float(row["tflops"]),
        tokens_per_second=row.get("tokens_per_second"),
        is_fitted=row["fit"],
        assumed=row["assumed"],
        reason=row.get("reason", ""),
    )


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {key: float(v) if isinstance(v, str) else v for key, v in values.items()}


def calibrate(rows: Sequence[Row]) -> EfficiencyConfig:
    """Fit the constants of one machine to its rows, by least squares of log ratios."""

    def efficiency(point: Sequence[float]) -> EfficiencyConfig:
        found = dict(zip(CONSTANTS, map(float, point), strict=False))
        return replace(rows[0].machine.efficiency, **found)

    def residuals(point: Sequence[float]) -> list[float]:
        return [math.log(row.predict(efficiency(point)) / row.measured) for row in rows]

    found = least_squares(residuals, [0.7, 0.4], bounds=([0.2, 0.2], [1.0, 1.0]))
    return efficiency(found.x)


def predictions(rows: Sequence[Row]) -> list[tuple[Row, float, EfficiencyConfig]]:
    """Return every row with its predicted FLOP/s and the constants, its own figure left out."""
    found = []
    for row in rows:
        machine = LEND.get(row.machine.name, row.machine.name)
        others = [
            r for r in rows if r.is_fitted and r.machine.name == machine and r.name != row.name
        ]
        efficiency = calibrate(others)
        found.append((row, row.predict(efficiency), efficiency))
    return found


def main() -> None:
    """Print the table and the constants of all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    rows = read_rows()
    table = Table(title="speed of training, TFLOP/s a device, left out of its own calibration")
    for column in ("published", "predicted", "actual", "error", "tokens/s", "actual", "assumed"):
        table.add_column(column, justify="left" if column in ("published", "assumed") else "right")
    figures = []
    for row, flops, efficiency in predictions(rows):
        error = flops / row.measured - 1
        tokens = row.tokens_per_second
        table.add_row(
            row.name if row.is_fitted else f"{row.name} *",
            f"{flops / 1e12:.1f}",
            f"{row.measured / 1e12:.1f}",
            f"{error:+.1%}",
            f"{flops / row.counted:,.0f}",
            f"{tokens:,.0f}" if tokens else "",
            "; ".join(filter(None, (row.assumed, row.reason))),
        )
        constants = {name: getattr(efficiency, name) for name in CONSTANTS}
        figures.append(
            {"name": row.name, "predicted": flops, "actual": row.measured, "error": error}
            | constants
        )
    console = Console()
    console.print(table)
    console.print("* never calibrated on")
    for name in ("h100", "a100"):
        efficiency = calibrate([r for r in rows if r.is_fitted and r.machine.name == name])
        used = load_machine(name).efficiency
        fitted = (f"{key} {getattr(efficiency, key):.3g}" for key in CONSTANTS)
        stated = (f"{getattr(used, key):g}" for key in CONSTANTS)
        console.print(
            f"{name}: {', '.join(fitted)} fitted to all its rows; "
            f"conf/machine/{name}.yaml says {', '.join(stated)}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
