"""The command that prints a ladder."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from models.count import count_flops, count_params
from sweeps.ladder.table import PUBLISHED, TableConfig, main, published_rows, rows_of


def test_a_row_is_the_closed_form_of_its_shape() -> None:
    config = TableConfig(low=1e6, high=1e7, clip=500, caption=20)
    rows = rows_of(config)
    assert len(rows) >= 4
    assert rows[0]["ratio"] is None
    for below, row in pairwise(rows):
        assert row["ratio"] == row["params"] / below["params"]
    base = config.base()
    for row in rows:
        base.width, base.depth, base.head_dim = row["width"], row["depth"], row["head_dim"]
        assert row["params"] == count_params(base).total == sum(row["parts"].values())
        assert row["flops_per_token"] == count_flops(base, [500], [20]).total / 500


def test_published_shapes_count_here_what_their_authors_state() -> None:
    # Ours has cross-attention where DiT has none and one modulation where DiT has one a block.
    for row in published_rows(TableConfig()):
        assert 0.65 < row["params_here"] / row["params"] < 1.25, row["name"]
        assert 0.85 < row["rung"]["params"] / row["params"] < 1.15
        assert row["width"] % row["heads"] == 0
        assert row["source"]
    assert {"DiT-S", "DiT-B", "DiT-L", "DiT-XL", "HunyuanVideo"} < {p.name for p in PUBLISHED}


def test_json_holds_rungs_that_fit_the_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["low=1e8", "high=1e9", "tp=8", "pp=4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["published"]) == len(PUBLISHED)
    assert all(row["heads"] % 8 == 0 and row["depth"] % 4 == 0 for row in found["rungs"])


def test_the_table_names_every_published_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["low=1e6", "high=1e8", "tp=8", "cp=8"]) == 2  # too small for 64 heads
    assert main(["low=1e7", "high=1e8"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("error: params=1e+06: no feasible shape is near with heads")
    assert all(shape.name in captured.out for shape in PUBLISHED)
    assert "FLOPs/token" in captured.out


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("tp=0", "tp=0: must be at least 1"),
        ("tp=x", "tp: Value 'x'"),
        ("rungs=3", "rungs: unknown key. Allowed: caption, "),
        ("head_dim=7", "head_dim=7: must be a multiple of 2"),
        ("clip=0", "clip=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {said}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_command_runs_as_a_module_and_its_help_needs_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "sweeps.ladder", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kinescale ladder low=" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "data.shell" in imported
    assert not imported & {"torch", "hydra", "omegaconf"}
