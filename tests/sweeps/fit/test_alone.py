"""The fitter knows nothing of the training stack; its command alone shares a shell."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_module_of_the_fitter_but_its_command_stands_alone():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (alone,) = [c for c in contracts if c["name"].startswith("fit stands alone")]
    modules = {p.stem for p in (ROOT / "sweeps" / "fit").iterdir() if not p.stem.startswith("__")}
    assert set(alone["source_modules"]) == {f"sweeps.fit.{name}" for name in modules}
    assert not alone.get("ignore_imports")
