"""The container files, read as text since nothing here builds them; and setup's choice of torch."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from data.secrets import is_secret_name, masked

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "containers"
DEVCONTAINER = ROOT / ".devcontainer/devcontainer.json"
FILES = [*sorted(FOLDER.iterdir()), DEVCONTAINER]
# What a build would take from a person's checkout.
PRIVATE = (".git", "**/.env*", "**/.netrc", "**/*.pem", "**/*.key")
HERE = "cuda" if torch.version.cuda else "cpu"
BUILDS = [pytest.param(build, marks=pytest.mark.heavy) for build in ("cpu", "cuda")]


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest) of the Dockerfile, with continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage, those of the stage that it is made from first."""
    found: dict[str, list[tuple[str, str]]] = {}
    stage: list[tuple[str, str]] = []
    for name, rest in instructions():
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            stage = found[alias] = [*found.get(image, [])]
        else:
            stage.append((name, rest))
    return found


def section(name: str) -> str:
    """Return a section of the Apptainer definition."""
    text = (FOLDER / "kinescale.def").read_text(encoding="utf-8")
    return text.split(f"%{name}\n")[1].split("\n%")[0]


def base_images() -> set[str]:
    """Return the images that are not made here."""
    froms = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    definition = (FOLDER / "kinescale.def").read_text(encoding="utf-8")
    return {*froms, *re.findall(r"^From: (.*)$", definition, re.MULTILINE)} - stages().keys()


def test_there_is_one_base_and_it_has_a_version_of_this_projects_python() -> None:
    (image,) = base_images()
    name, _, tag = image.partition(":")
    assert re.match(r"\d+\.\d+\.\d+-", tag)
    assert "latest" not in tag
    assert "/" not in name  # no registry is named
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tag.startswith(project["tool"]["mypy"]["python_version"] + ".")


@pytest.mark.parametrize("stage", ["dev", "kinescale"])
def test_an_image_ends_as_a_user_that_is_not_root(stage: str) -> None:
    parts = stages()[stage]
    (user,) = [rest for name, rest in parts if name == "USER"]
    assert user == "kinescale"
    assert any(name == "RUN" and "useradd" in rest and user in rest for name, rest in parts)
    assert list(stages())[-1] == "kinescale"
    about = json.loads(DEVCONTAINER.read_text(encoding="utf-8"))
    assert about["remoteUser"] == user


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_or_copies_a_key(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert masked(text, {}) == text
    names = [rest.partition("=")[0] for name, rest in instructions() if name in ("ARG", "ENV")]
    assert not any(map(is_secret_name, names))


def test_what_is_copied_is_there_and_leaves_out_what_is_private() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert set(PRIVATE) <= set(ignored)
    copied = [rest for name, rest in instructions() if name == "COPY"]
    sources = [word for rest in copied for word in rest.split()[:-1] if not word.startswith("--")]
    listed = [line.split()[0] for line in section("files").splitlines() if line.strip()]
    assert sources == ["Makefile", "."]
    assert [path for path in [*sources, *listed] if not (ROOT / path).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {p.rstrip("*") for p in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"Makefile", "pyproject.toml", "constraints.txt"} <= set(listed)


def test_every_make_command_exists() -> None:
    about = json.loads(DEVCONTAINER.read_text(encoding="utf-8"))
    steps = [rest for name, rest in instructions() if name == "RUN"]
    text = "\n".join([*steps, section("post"), about["postCreateCommand"]])
    called = re.findall(r"\bmake (?:-C \S+ )?([a-z-]+)((?: [A-Z_]+=\S+)*)", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE))
    assert {target for target, _ in called} == {"setup", "setup-system"}
    assert {target for target, _ in called} <= targets
    given = {word.partition("=")[0] for _, words in called for word in words.split()}
    assert given | {"TORCH_INDEX"} <= variables
    assert ("ARG", "TORCH=cpu") in instructions()
    assert section("arguments").split() == ["TORCH=cpu"]
    assert about["build"]["target"] in stages()
    for key in ("dockerfile", "context"):
        assert (DEVCONTAINER.parent / about["build"][key]).exists()


def test_the_page_says_that_they_were_never_built() -> None:
    assert "was ever built" in (FOLDER / "README.md").read_text(encoding="utf-8")


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``make setup`` on an environment in a folder that is set up already: this one."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    (folder / ".setup-stamp").touch()
    return subprocess.run(
        ["make", "setup", f"VENV={folder}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("wanted", [*BUILDS, "gpu"])
def test_setup_says_whether_torch_is_the_build_asked_for(wanted: str, tmp_path: Path) -> None:
    done = make(tmp_path, f"TORCH={wanted}")
    assert (done.returncode == 0) == (wanted == HERE)
    assert ("kinescale is ready" in done.stdout) == (wanted == HERE)
    if wanted == "gpu":
        assert "TORCH=gpu: must be cpu or cuda" in done.stderr
    elif wanted != HERE:
        assert f"is a build for {HERE}. Use make clean-venv" in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_setup_looks_into_the_index_that_is_given(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        command = ["make", "--dry-run", "setup", f"VENV={tmp_path}", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return " ".join(done.stdout.split())

    assert "--extra-index-url 'http://index/a b' --con" in said("TORCH_INDEX=http://index/a b")
    assert "--extra-index-url" not in said()
    assert re.search(r"2\.3 GB with a CPU wheel.*6\.3 GB with the CUDA build", said())
