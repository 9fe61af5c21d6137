"""Which runs a folder holds: itself, those of a study, or those of a root; torch-free."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.yaml"
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class RunFolder:
    """A frozen run, as its folder describes it."""

    name: str
    path: Path

    @property
    def is_done(self) -> bool:
        """Whether it has its result."""
        return os.path.exists(self.path / RESULT_FILE)


def find_runs(folder: Path) -> list[RunFolder]:
    """Return the frozen runs in a run folder, a study's folder or a folder of runs, by name.

    A run whose config cannot be read, or is lost, is among them: who reads it will say so. Raises
    ValueError where there are none.
    """
    if _is_run(folder):
        return [RunFolder(folder.name or folder.resolve().name, folder)]
    for place in (folder / "runs", folder):
        found = [path for path in _folders(place) if _is_run(path)]
        if found:
            return [RunFolder(path.name, path) for path in found]
    raise ValueError(
        f"folder={folder}: holds no runs (folders with a {CONFIG_FILE}). Give a run's folder, a "
        "study's, or the root of several."
    )


def _folders(place: Path) -> list[Path]:
    """Return the folders in a place by name, without the hidden ones."""
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return []
    found = (place / name for name in names if not name.startswith("."))
    return [path for path in found if os.path.isdir(path)]


def _is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's, or one that may not be looked into and so may be one."""
    try:
        os.lstat(folder / CONFIG_FILE)
    except PermissionError:
        return True
    except OSError:
        return os.path.lexists(folder / "metrics.jsonl")
    return True


def refuse_study(words: Iterable[str], command: str) -> None:
    """Raise ValueError where a word names a study: those are the room of ``sweeps``."""
    for word in words:
        if word.startswith("study="):
            raise ValueError(f"{word}: a study is not one run. Use kinescale {command} {word}.")


def split_folders(words: list[str], rules: str) -> tuple[list[Path], dict[str, str]]:
    """Return the folders and the key=value settings of a command line.

    rules: the settings that the command knows, separated by spaces. Raises ValueError.
    """
    folders, settings, known = [], {}, rules.split()
    for word in words:
        key, equals, value = word.partition("=")
        name = key.lstrip("-").replace("-", "_")
        if word.startswith("--") and name in known:
            settings[name] = value if equals else "true"
        elif equals and key in known:
            settings[key] = value
        elif word.startswith("-") or (equals and not Path(word).exists()):
            raise ValueError(f"{key}: unknown key. Allowed: {', '.join(known)}, see --help.")
        else:
            folders.append(Path(word))
    return folders, settings
