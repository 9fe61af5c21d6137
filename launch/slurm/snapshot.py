"""The code that queued jobs run: a copy of the rooms, so that later edits do not reach them."""

import compileall
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

import launch
from data.files import write_text
from data.secrets import masked

CODE_FILE = "code.json"
DIFF_FILE = "code.diff"
_ROOMS = ("models", "data", "trainer", "launch", "sweeps")
_SUFFIXES = {".py", ".yaml", ".json", ".safetensors", ".html", ".css", ".txt"}


def snapshot(root: Path) -> Path:
    """Copy the rooms' code to ``root/code-DIGEST`` unless it is there; return that folder."""
    source = Path(launch.__file__).resolve().parents[1]
    paths = sorted(
        path.relative_to(source)
        for room in _ROOMS
        for path in (source / room).rglob("*")
        if path.suffix in _SUFFIXES and path.is_file()
    )
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path} {(source / path).stat().st_size}\n".encode())
        digest.update((source / path).read_bytes())
    folder = root / f"code-{digest.hexdigest()[:12]}"
    if folder.exists():
        return folder
    temporary = root / f".{folder.name}-{os.getpid()}"
    for path in paths:
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, temporary / path)
    # Compiled once: ranks would each do it again, or all write into one folder.
    compileall.compile_dir(
        temporary,
        quiet=2,
        stripdir=str(temporary),
        prependdir=str(folder),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    try:
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # another submission was first
        if not folder.exists():
            raise
    return folder


def describe_code(code: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return git's revision of the code with the snapshot's folder, and git's diff to it.

    Keys are blanked out of the diff. Without git both are empty.
    """
    source = Path(launch.__file__).resolve().parents[1]
    revision = _git(source, "rev-parse", "HEAD").strip()
    diff = masked(_git(source, "diff", "HEAD") if revision else "", environ)
    return {"revision": revision, "dirty": bool(diff), "code": str(code)}, diff


def write_code(run_dir: Path, about: dict[str, Any], diff: str) -> None:
    """Write code.json and, where there is one, code.diff into a run folder."""
    for name, text in ((CODE_FILE, json.dumps(about, indent=1) + "\n"), (DIFF_FILE, diff)):
        path = run_dir / name
        if not text:
            path.unlink(missing_ok=True)
            continue
        write_text(path, text)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
