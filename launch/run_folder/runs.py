"""Which runs a folder holds: itself, those of a study, or those of a root; torch-free."""

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
        return (self.path / RESULT_FILE).exists()


def find_runs(folder: Path) -> list[RunFolder]:
    """Return the frozen runs in a run folder, a study's folder or a folder of runs, by name.

    Raises ValueError where there are none.
    """
    for pattern in (CONFIG_FILE, f"runs/*/{CONFIG_FILE}", f"*/{CONFIG_FILE}"):
        found = sorted(path.parent for path in folder.glob(pattern) if path.is_file())
        if found:
            return [RunFolder(path.name or path.resolve().name, path) for path in found]
    raise ValueError(
        f"folder={folder}: holds no runs (folders with a {CONFIG_FILE}). Give a run's folder, a "
        "study's, or the root of several."
    )


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
