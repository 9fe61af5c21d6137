"""What was looked at, as lines for people and as JSON; numbers in words."""

import json

import pytest

from data.checks import Check, Verdict, gathered, tell
from data.words import counted, shown, shown_times


def passes(run: str, count: float) -> Check:
    return Check("tokens", Verdict.warning, f"{count:g} passes", "Add clips.", run, count)


CHECKS = [
    Check("data", Verdict.good, "9 clips"),
    passes("a", 5), passes("b", 230), passes("c", 40),
    Check("disk", Verdict.bad, "full", "Make room.", "b"),
    Check("disk", Verdict.bad, "full", "Make room.", "c"),
    Check("tokens", Verdict.warning, "of none in particular"),
]  # fmt: skip


def test_warnings_of_one_kind_are_one_line_with_their_number_and_the_worst() -> None:
    assert [check.line() for check in gathered(CHECKS)] == [
        "good    data: 9 clips",
        "warning tokens: 3 runs, the worst b: 230 passes. Add clips.",
        "bad     disk: 2 runs, such as b: full. Make room.",
        "warning tokens: of none in particular",
    ]
    assert gathered(CHECKS[:2])[1].line() == "warning tokens (a): 5 passes. Add clips."


def test_json_holds_every_check_and_people_read_few(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(CHECKS, as_json=False) == 2
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "no go: 2 of 7 checks are bad"
    assert lines == [check.line() for check in gathered(CHECKS)]
    assert len(lines) < len(CHECKS)
    tell(CHECKS, as_json=True)
    found = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in found] == [
        "data", "tokens (a)", "tokens (b)", "tokens (c)", "disk (b)", "disk (c)", "tokens",
    ]  # fmt: skip
    assert found[1] == {
        "name": "tokens (a)", "verdict": "warning", "found": "5 passes", "remedy": "Add clips.",
    }  # fmt: skip


def test_counts_and_numbers_read_as_a_person_writes_them() -> None:
    assert [counted(n, "run") for n in (0, 1, 2, 1200)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,200 runs",
    ]
    assert counted(1, "study", "studies") == "1 study"
    assert counted(3, "study", "studies") == "3 studies"
    assert shown([2.4e11, 5.0, 0.1]) == "[2.4e+11,5,0.1]"
    assert [shown_times(v) for v in (0.123, 3.44, 9.97, 100.0, 2300.4)] == [
        "0.12", "3.4", "10", "100", "2,300",
    ]  # fmt: skip
