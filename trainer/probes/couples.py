"""Many runs asked in one process, each beside its twin: a list of couples in a file."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from data.files import write_json


class Asked(Protocol):
    """What a probe is told: one run, its twin and a file, or a file that lists such."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    run: str
    twin: str
    out: str
    couples: str


A = TypeVar("A", bound=Asked)


def check_asked(config: Asked) -> None:
    """Raise ValueError unless one run is named, or a list of them."""
    if bool(config.run) == bool(config.couples):
        raise ValueError("run=: must be given, or couples=FILE, not both. See --help.")
    if config.couples and (config.twin or config.out):
        raise ValueError("couples=: names twins and files itself. Leave out twin= and out=.")


def in_turn(config: A, file: str, ask: Callable[[A, Path], None]) -> None:
    """Ask one run, or all of a list whose file is not there yet.

    file: name of the answer in the run's folder, where ``out`` names no other. Raises ValueError
    for a run that cannot be asked; of a list, when all others were.
    """
    failed = []
    for one in each(config):
        out = Path(one.out) if one.out else Path(one.run) / file
        try:
            ask(one, out)
        except ValueError as error:
            if not config.couples:
                raise
            failed.append(str(error))
    if failed:
        raise ValueError(f"couples={config.couples}: {len(failed)} not asked. {' '.join(failed)}")


def write_answer(out: Path, answer: dict[str, Any]) -> None:
    """Write an answer; its folder is made now, so that a question refused leaves none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, answer)


def each(config: A) -> Iterator[A]:
    """Yield what is asked of each couple whose file is not there yet, or the one question."""
    if not config.couples:
        yield config
        return
    path, keys = Path(config.couples), {"run", "twin", "out"}
    try:
        couples = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"couples={path}: cannot be read ({error}). Name a JSON file.") from None
    for couple in couples if isinstance(couples, list) else [couples]:
        words = isinstance(couple, dict) and all(isinstance(v, str) for v in couple.values())
        if not words or set(couple) != keys:
            raise ValueError(f"couples={path}: must list run, twin and out, as text. Add them.")
        if not Path(couple["out"]).exists():
            yield replace(config, couples="", **couple)
