"""Files that are no table are refused by name, and rows that look wrong are named in a warning."""

import numpy as np
import pytest

from sweeps.fit.__main__ import main
from sweeps.fit.forms.catalogue import CHINCHILLA
from sweeps.fit.law import fit_law, fit_table
from sweeps.fit.options import FitOptions
from sweeps.fit.rows import files
from sweeps.fit.rows.read import read_rows
from sweeps.fit.rows.runs import Run
from sweeps.fit.rows.table import read_table

HEADER = "name,params,tokens,loss\n"
LINES = "a,1e6,1e8,3.0\nb,2e6,1e8,2.9\nc,4e6,2e8,2.8\n"
MAPPING = {"params": "params", "tokens": "tokens", "loss": "loss"}


def grid(budgets=3, sizes=4):
    """Return runs on an isoFLOP grid of a known law, without noise."""
    runs = []
    for i, flops in enumerate(1e18 * 4.0 ** np.arange(budgets)):
        for j, params in enumerate(1e8 * 2.0**i * np.geomspace(0.3, 3.3, sizes)):
            tokens = flops / 6 / params
            loss = 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28
            runs.append(Run(f"r{i}{j}", params, tokens, flops, loss * (1 + 1e-4 * (-1) ** j)))
    return runs


def warnings_of(runs):
    return "\n".join(fit_law(runs, options=FitOptions(resamples=20)).warnings)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (HEADER.encode(), "has a header and no rows"),
        ((HEADER + LINES).replace(",", ";").encode(), "parted by semicolons"),
        ((HEADER + LINES).replace(",", "\t").encode(), "parted by tabs"),
        (LINES.replace("a,", "1,").replace("b", "2").encode(), "holds numbers"),
        (b"params,tokens,loss,loss\n1,2,3,4\n", "names loss more than once"),
        ((HEADER + "\na,1e6,1e8,3,1\n").encode(), "line 3 has 5 cells, the header 4"),
        ((HEADER + LINES).replace("b,", '"b,').encode(), "unexpected end of data"),
        ((HEADER + LINES).encode("utf-16"), "UTF-8"),
        ((HEADER + LINES).replace("b", "\0").encode(), "NUL"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_rows(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_blank_lines_and_blanks_around_cells_change_nothing(tmp_path):
    plain, odd = tmp_path / "plain.csv", tmp_path / "odd.csv"
    plain.write_text(HEADER + LINES)
    odd.write_bytes(
        b"\xef\xbb\xbf\r\n" + (HEADER + LINES).replace(",", " , ").replace("\n", "\r\n\n").encode()
    )
    assert read_rows(odd)[0] == read_rows(plain)[0]


def test_errors_name_the_line_of_the_file_whatever_was_skipped_before(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADER.strip() + ",excluded,flops\n\na,1e6,1e8,3,1,\n\nb,lots,1e8,3,,\n")
    with pytest.raises(ValueError, match="params='lots' in line 5"):
        read_table(path, CHINCHILLA, MAPPING)
    path.write_text(HEADER.strip() + ",excluded,flops\na,1e6,1e8,3,1,\nb,1e6,1e8,3,,-1\n")
    with pytest.raises(ValueError, match="flops='-1' in line 3"):
        fit_table(path)


def test_a_column_of_nearly_the_name_is_offered(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text((HEADER + LINES).replace("params", "Params"))
    assert main([f"table={path}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: params=params: not a column")
    assert "columns.params=Params" in said


def test_objects_with_unlike_keys_are_a_table_and_others_are_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"params": 1e6, "tokens": 2e6, "loss": 3}\n{"params": 1e6, "loss": null}\n')
    with pytest.raises(ValueError, match="tokens='' in line 2: is blank"):
        read_table(path, CHINCHILLA, MAPPING)
    path.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="line 1 must hold one JSON object"):
        read_rows(path)


def test_a_huge_file_is_refused_before_it_is_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + LINES)
    monkeypatch.setattr(files, "MAX_ROWS", 2)
    with pytest.raises(ValueError, match="more than 2 rows"):
        read_rows(path)
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="MiB; at most"):
        read_rows(path)


def test_flops_below_tokens_look_swapped():
    swapped = [Run(r.name, r.params, r.flops, r.tokens, r.loss) for r in grid()]
    with pytest.raises(ValueError, match=r"flops has median .* the columns look swapped"):
        fit_law(swapped, options=FitOptions(resamples=20))


@pytest.mark.heavy
def test_runs_in_other_units_are_named():
    runs = grid()
    one = runs[5]
    runs[5] = Run("odd", one.params / 1e6, one.tokens, one.flops, one.loss)
    assert "FLOPs for each parameter and token of odd (6e+06)" in warnings_of(runs)
    millions = [Run(r.name, r.params / 1e6, r.tokens, r.flops, r.loss) for r in grid()]
    assert "The median run has 6e+06 FLOPs for each parameter and token" in warnings_of(millions)


@pytest.mark.heavy
def test_runs_off_the_law_and_repeated_ones_are_named():
    runs = grid()
    off, last = runs[5], runs[-1]
    runs[5] = Run("late", off.params, off.tokens, off.flops, 1.4 * off.loss)
    again = Run("again", last.params, last.tokens, last.flops, 1.001 * last.loss)
    other = Run(runs[0].name, 3e8, 1e9, 1.8e18, runs[0].loss)
    said = warnings_of([*runs, again, other])
    assert "Far off the law, " in said
    assert "late (+4" in said
    assert (
        f"with another loss, 1 run: again of {last.name}. They are taken as seeds of one point"
        in said
    )
    assert f"Several rows are called {other.name}" in said


@pytest.mark.heavy
def test_seeds_that_share_a_cluster_are_not_suspect():
    last = grid()[-1]
    point = (last.params, last.tokens, last.flops)
    seeds = [Run(f"s{i}", *point, (1 + 1e-4 * i) * last.loss, cluster="s") for i in range(2)]
    said = warnings_of([*grid()[:-1], *seeds])
    assert "cluster" not in said
    assert "off the law" not in said
    assert "another unit" not in said


@pytest.mark.heavy
def test_a_best_loss_that_rises_with_compute_is_named():
    runs = [
        Run(r.name, r.params, r.tokens, r.flops, r.loss * (1.3 if r.flops > 1e19 else 1))
        for r in grid()
    ]
    assert "The best loss rises with compute, from " in warnings_of(runs)
    flat = [Run(r.name, r.params, r.tokens, r.flops, 2.0) for r in grid()]
    assert "All runs have one loss (2)" in warnings_of(flat)
