"""Mutants change one expression each, and every file of them has tests that could see them."""

import ast
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutants import NEAREST, judge, mutants_of, nearest, sources

SOURCE = '''
def area(width: float = 2.0, *, closed=True) -> float:
    """Return it; text and annotations stay."""
    if width < 0 and closed:
        raise ValueError(f"width={width + 1}: must be positive")
    return -max(width, 0.5) * round(width)
'''
CHANGES = [
    "True  ->  False",
    "2.0  ->  4.0",
    "if width < 0 and closed:  ->  if not (width < 0 and closed):",
    "width < 0 and closed  ->  width < 0 or closed",
    "width < 0  ->  width <= 0",
    "0  ->  1",
    "-max(width, 0.5) * round(width)  ->  -max(width, 0.5) / round(width)",
    "-max(width, 0.5)  ->  max(width, 0.5)",
    "max(width, 0.5)  ->  max(0.5, width)",
    "max(width, 0.5)  ->  min(width, 0.5)",
    "0.5  ->  1.0",
    "round(width)  ->  width",
]
TEST = "from room import area\n\n\ndef test_an_area():\n    assert area(3.0) == -9\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the path of a module with one test file, in a folder of their own."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "room.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "tests/test_room.py").write_text(TEST, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n dist\n slow\n", encoding="utf-8")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setitem(NEAREST, "small", {"room.py": ("test_room",)})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "room.py"


def test_each_mutant_is_one_change_of_what_runs(room: str) -> None:
    found = mutants_of(room)
    assert [mutant.what for mutant in found] == CHANGES
    plain = ast.unparse(ast.parse(SOURCE))
    for mutant in found:
        source = mutant.source
        assert source != plain
        assert "must be positive" in source
        assert "Return it; text and annotations stay." in source
        ast.parse(source)
    assert len({mutant.source for mutant in found}) == len(found)


@pytest.mark.heavy
def test_a_mutant_dies_where_a_test_sees_it_and_lives_where_none_does(room: str) -> None:
    seen = ("-max(width, 0.5)  ->  max(width, 0.5)", "round(width)  ->  width", "2.0  ->  4.0")
    chosen = [mutant for mutant in mutants_of(room) if mutant.what in seen]
    verdicts = {mutant.what: verdict for mutant, verdict in judge(chosen, "small", 2)}
    assert verdicts == {seen[0]: "killed", seen[1]: "LIVES", seen[2]: "LIVES"}


@pytest.mark.parametrize("name", list(NEAREST))
def test_every_file_of_a_room_has_tests_near_it(name: str) -> None:
    files = sources(name)
    assert files
    for path in files:
        assert nearest(name, path)


def test_a_test_file_that_is_gone_is_named(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEAREST, "small", {"room.py": ("test_room", "test_gone")})
    with pytest.raises(SystemExit, match=r"room\.py: tests/test_gone\.py of NEAREST is missing"):
        nearest("small", room)
