"""The five rooms: their names resolve here, their walls hold, their doors are docstrings."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ["models", "data", "trainer", "launch", "sweeps"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_resolves_to_this_repository(room: str) -> None:
    # PyPI has a `trainer` and a `sweeps` of other people.
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / room / "__init__.py"


def test_rooms_know_only_the_rooms_below_them() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    if not script.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [str(script), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


FRONT_DOORS = sorted(
    p.relative_to(ROOT) for room in ROOMS for p in (ROOT / room).rglob("__init__.py")
)


@pytest.mark.parametrize("path", FRONT_DOORS, ids=str)
def test_init_files_hold_only_a_docstring(path: Path) -> None:
    body = ast.parse((ROOT / path).read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)
    assert isinstance(body[0].value.value, str)
