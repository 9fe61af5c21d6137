"""The committed laws come from the committed tables by the command that their pages print."""

import json
import math
import re
import shlex
from html import unescape
from pathlib import Path

import pytest

from sweeps.fit.__main__ import parse
from sweeps.fit.law import fit_table
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import render_page

STUDIES = Path(__file__).parents[3] / "docs" / "studies"
# Machines differ in the last digits of sums; the least digits agree of an interval's end near 0.
AGREES = 1e-5
NOTHING = 1e-12  # of a loss: an E whose bound is zero ends at the rounding of its processor


def committed():
    return sorted(path.parent.name for path in STUDIES.glob("*/law.json"))


def differences(found, stated, where=""):
    """Yield what two JSON values differ in, numbers by more than `AGREES` of them or `NOTHING`."""
    if isinstance(found, dict) and isinstance(stated, dict):
        for key in found.keys() | stated.keys():
            if key not in found or key not in stated:
                yield f"{where}.{key}: is in one of them alone"
            else:
                yield from differences(found[key], stated[key], f"{where}.{key}")
    elif isinstance(found, list) and isinstance(stated, list) and len(found) == len(stated):
        for i, (one, other) in enumerate(zip(found, stated, strict=True)):
            yield from differences(one, other, f"{where}[{i}]")
    elif isinstance(found, float) and isinstance(stated, float):
        if not math.isclose(found, stated, rel_tol=AGREES, abs_tol=NOTHING):
            yield f"{where}: {found} and {stated}"
    elif found != stated:
        yield f"{where}: {found} and {stated}"


def printed_command(name):
    """Return the words of `kinescale fit` that the study's page prints."""
    page = render_page(read_inputs(STUDIES / name), {})
    line = unescape(re.search(r"kinescale fit (table=.*)", page)[1])
    return shlex.split(line.replace("STUDY", str(STUDIES / name)))


def test_every_table_with_a_law_is_fitted_here():
    assert committed() == ["cpu_isoflop", "cpu_law", "demo"]


@pytest.mark.heavy
@pytest.mark.parametrize("name", committed())
def test_a_committed_law_is_that_of_its_table_by_the_command_on_its_page(name):
    asked = parse(printed_command(name))
    assert asked.out == str(STUDIES / name / "law.json")
    assert asked.said == ""  # the page's command needs nothing that lies beside
    bare = parse([f"table={STUDIES / name / 'runs.csv'}"])
    assert (asked.form, asked.options, asked.columns) == (bare.form, bare.options, bare.columns)
    found = fit_table(asked.table, asked.form, asked.options, columns=asked.columns)
    stated = json.loads((STUDIES / name / "law.json").read_text(encoding="utf-8"))
    for law in (found, stated):
        assert law.pop("gradient_norm") < 1e-12  # rounding alone
    assert list(differences(found, stated)) == []
