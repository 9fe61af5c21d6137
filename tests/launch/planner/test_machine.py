"""Machines: what their files say, and the fit behind the CPU's."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from launch.planner.machine import MACHINE_DIR, load_machine, machine_names
from models.config import ModelConfig

RUNS = Path(__file__).parents[3] / "docs" / "studies" / "demo" / "runs.csv"
PACK_TOKENS = 768


def demo_runs() -> list[dict[str, str]]:
    with RUNS.open() as file:
        return [row for row in csv.DictReader(file) if row["world_size"] == "1"]


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_loads_and_says_where_its_price_comes_from(name):
    machine = load_machine(name)
    assert machine.name == name
    assert name in machine_names()
    assert all((machine.price.source, machine.price.as_of, machine.price.currency))
    assert machine.node_link.bytes_per_second >= machine.network.bytes_per_second


def test_the_constants_of_cpu2_are_the_fit_of_the_committed_runs():
    rows = []
    for run in demo_runs():
        seconds = float(run["seconds"])
        packs = int(run["steps"]) * int(run["batch_tokens"]) / PACK_TOKENS
        rows.append([packs, packs * int(run["depth"]), float(run["flops"])])
        rows[-1] = [value / seconds for value in rows[-1]]
    (pack, block, per_flop), residual = nnls(np.array(rows), np.ones(len(rows)))
    machine = load_machine("cpu2")
    sustained = machine.efficiency.matmul * machine.peak("fp32")
    assert machine.efficiency.pack_seconds == pytest.approx(pack, rel=0.01)
    assert machine.efficiency.block_seconds == pytest.approx(block, rel=0.01)
    assert sustained == pytest.approx(1 / per_flop, rel=0.01)
    assert machine.efficiency.attention == machine.efficiency.matmul
    assert residual / len(rows) ** 0.5 < 0.11


def test_cpu2_predicts_the_rate_of_the_demo_at_every_width():
    machine = load_machine("cpu2")
    errors = []
    for run in demo_runs():
        width, depth = int(run["width"]), int(run["depth"])
        model = ModelConfig(
            width=width, depth=depth, head_dim=8, values_per_token=32, spread=[1.0] * 8
        )
        measured = float(run["flops"]) / float(run["seconds"])
        errors.append(machine.flops_per_second(model) / measured - 1)
    assert abs(np.median(errors)) < 0.1
    assert max(map(abs, errors)) < 0.4  # one run had the machine for itself


def test_a_longer_pack_and_a_wider_model_never_slow_a_device():
    machine = load_machine("cpu2")
    rates = [
        machine.flops_per_second(ModelConfig(width=width), pack_tokens)
        for width in (32, 64, 128)
        for pack_tokens in (768, 1536)
    ]
    assert rates == sorted(rates)


def test_money_and_energy_follow_device_hours():
    machine = load_machine("h100", ["price.per_device_hour=2", "watts=1000", "power_overhead=1.5"])
    assert machine.money(1024 * 24) == 1024 * 24 * 2
    assert machine.kilowatt_hours(10) == pytest.approx(15)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("h1000", [], "machine=h1000: unknown choice. Did you mean h100? Allowed: a100"),
        ("../conf/machine/h100", [], "named by the path of its file (machine=my/cluster.yaml)"),
        ("no/such.yaml", [], "machine=no/such.yaml: no such file. Copy one of"),
        ("h100", ["speed=1"], "machine.speed: unknown key"),
        ("h100", ["price.foo=1"], "machine.price.foo: unknown key. Allowed: as_of"),
        ("h100", ["watts=much"], "machine.watts: Value 'much'"),
        ("h100", ["memory_bytes=0"], "machine.memory_bytes=0: must be above 0"),
        ("h100", ["network.bytes_per_second=-1"], "machine.network.bytes_per_second=-1"),
        ("h100", ["efficiency.matmul=1.2"], "machine.efficiency.matmul=1.2: must be at most 1"),
        ("h100", ["price.per_device_hour=-1"], "must be at least 0"),
        ("h100", ["devices_per_node=0"], "must be at least 1"),
    ],
)
def test_a_bad_machine_is_refused_with_the_remedy(name, overrides, message):
    with pytest.raises(ValueError, match="machine") as caught:
        load_machine(name, overrides)
    assert message in str(caught.value)


def test_a_machine_of_ones_own_is_the_path_of_its_file(tmp_path):
    own = tmp_path / "our_hall.yaml"
    own.write_text((MACHINE_DIR / "h100.yaml").read_text().replace("watts: 1275", "watts: 999"))
    machine = load_machine(str(own))
    assert (machine.name, machine.watts) == ("our_hall", 999)
    own.write_text("wats: 3")
    with pytest.raises(ValueError, match=r"machine.wats: unknown key. Did you mean watts"):
        load_machine(str(own))
    own.write_text("watts: [")
    with pytest.raises(ValueError, match=r"our_hall.yaml: is no YAML"):
        load_machine(str(own))


def test_an_unknown_precision_names_those_that_are_known():
    with pytest.raises(ValueError, match=r"parallel.precision=fp8.*Use bf16, fp32"):
        load_machine("h100").peak("fp8")
