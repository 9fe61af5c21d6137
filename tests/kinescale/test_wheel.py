"""A wheel of the project works where nothing of the repository is: command, values, weights."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from kinescale import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "data", "trainer", "launch", "sweeps", "kinescale")
SUFFIXES = {".py", ".yaml", ".html", ".css", ".js", ".json", ".safetensors"}


def pip(*words: str, cwd: Path) -> None:
    # Not by looking for their modules: setuptools warns where another test imported distutils.
    there = {distribution.name for distribution in distributions()}
    if not {"pip", "setuptools"} <= there:
        pytest.skip("pip or setuptools is not installed (make setup)")
    quiet = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-deps")
    done = subprocess.run(
        [sys.executable, "-m", "pip", words[0], *quiet, *words[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which a wheel was installed that was built from a copy of the code."""
    work = tmp_path_factory.mktemp("wheel")
    source, place = work / "source", work / "installed"
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(work), ".", cwd=source)
    (wheel,) = work.glob("kinescale-*.whl")
    pip("install", "--target", str(place), str(wheel), cwd=work)
    return place


def run(installed: Path, cwd: Path, *words: str) -> str:
    """Run Python where only the installed folder is found; return what it printed."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.heavy
def test_a_wheel_holds_every_file_that_the_code_reads(installed: Path) -> None:
    files = [p for name in PACKAGES for p in (ROOT / name).rglob("*") if p.suffix in SUFFIXES]
    assert len(files) > 400
    assert [p for p in files if not (installed / p.relative_to(ROOT)).is_file()] == []


@pytest.mark.heavy
def test_the_command_and_the_module_run_from_there(installed: Path, tmp_path: Path) -> None:
    said = run(installed, tmp_path, "-m", "kinescale", "--help")
    assert said.startswith("kinescale: scaling laws")
    code = "import kinescale, models; print(kinescale.__file__, models.__file__, sep='\\n')"
    places = run(installed, tmp_path, "-c", code).splitlines()
    assert [Path(place).parents[1] for place in places] == [installed, installed]
    script = (installed / "bin" / "kinescale").read_text(encoding="utf-8")
    assert "from kinescale.__main__ import main" in script
    assert run(installed, tmp_path, str(installed / "bin/kinescale"), "--version") == (
        f"kinescale {__version__}\n"
    )


@pytest.mark.heavy
def test_an_experiment_composes_with_the_shipped_weights(installed: Path, tmp_path: Path) -> None:
    code = (
        "import kinescale\n"
        "run = kinescale.compose_run(['experiment=cpu_demo', 'horizon.flops=1e11'])\n"
        "print(run.codec.path, run.codec.digest)"
    )
    path, digest = run(installed, tmp_path, "-c", code).split()
    assert "vae_tiny" in path
    assert len(digest) == 64


@pytest.mark.heavy
def test_studies_are_listed_composed_and_read(installed: Path, tmp_path: Path) -> None:
    words = ("-m", "kinescale", "completion", "words", "plan-study", "study=cpu")
    assert "study=cpu_isoflop" in run(installed, tmp_path, *words).splitlines()
    code = (
        "import sys, kinescale\n"
        "from sweeps.kinds.compose import compose_study\n"
        "print(len(compose_study(['study=cpu_isoflop']).budgets))\n"
        "study = kinescale.load_study(sys.argv[1])\n"
        "print(study.name, len(study.runs) > 10)"
    )
    said = run(installed, tmp_path, "-c", code, str(ROOT / "docs/studies/demo"))
    assert said == "6\ndemo True\n"
