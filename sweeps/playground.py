"""Open a page that draws with a trained run, or with the best run of each budget side by side.

usage: kinescale playground study=FOLDER [KEY=VALUE ...]
       kinescale playground run=FOLDER [KEY=VALUE ...]

examples:
  kinescale playground study=runs/demo            # the best run of each budget
  kinescale playground study=runs/demo rungs=all  # every run that has a checkpoint
  kinescale playground run=runs/NAME port=8000

The page takes a prompt, an image or a video, a task, a shape and a seed, and draws the same request
from the same noise with every run that is ticked. It loads nothing from elsewhere. Clips are kept
in out=, each with a JSON beside it that says how it was made. Ctrl-C ends it.

Whoever reaches the port can draw: on another host than this one, forward the port
(ssh -L 7860:localhost:7860 HOST) rather than open it.

Needs Starlette and uvicorn: pip install "kinescale[playground]".
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from typing_extensions import Doc

from data.command_line import parse
from data.notices import doing
from data.reading import number_of, read_object
from data.shell import command
from launch.run_folder.runs import RESULT_FILE, RunFolder, find_runs
from trainer.config import RunKind, load_run
from trainer.kinds import kind_in


class Which(StrEnum):
    """Which runs of a study are offered."""

    best = "best"
    all = "all"


@dataclass
class PlaygroundConfig:
    """What the page draws with, and where it is found."""

    study: Annotated[str, Doc("Folder of a study, or of several runs.")] = ""
    run: Annotated[str, Doc("Folder of one run.")] = ""
    rungs: Annotated[Which, Doc("The run of least loss of each budget, or all.")] = Which.best
    out: Annotated[str, Doc("Where clips are kept.")] = "playground"
    host: Annotated[str, Doc("Address that the page is served at.")] = "127.0.0.1"
    port: Annotated[int, Ge(0), Le(65535), Doc("Port of it; 0 takes a free one.")] = 7860


@dataclass(frozen=True)
class Found:
    """A run that can be drawn with: its budget in FLOPs, size and loss, 0 where not said."""

    run: RunFolder
    budget: float
    params: float
    loss: float

    @property
    def title(self) -> str:
        """What tells it from others."""
        return (
            f"{self.budget:.3g} FLOPs".replace("e+0", "e").replace("e+", "e")
            if self.budget
            else self.run.name
        )

    @property
    def note(self) -> str:
        """What is known of it."""
        parts = [f"{self.params:,.0f} parameters"] if self.params else []
        return ", ".join([*parts, f"loss {self.loss:.4g}" if self.loss else "not finished"])


def found_in(folder: Path) -> list[Found]:
    """Return the runs in a folder that have a checkpoint, by budget, then by loss.

    Raises ValueError where there is none.
    """
    found: list[Found] = []
    for run in find_runs(folder):
        # Studies of other kinds hold codecs and captioners, which draw nothing.
        if not (run.path / "checkpoints").is_dir() or kind_in(run.path) is not RunKind.diffusion:
            continue
        result = read_object(run.path / RESULT_FILE).values
        budget, params, loss = (_number(result, key) for key in ("flops", "params", "loss"))
        found.append(Found(run, load_run(run.path).horizon.flops or budget, params, loss))
    if not found:
        raise ValueError(
            f"study={folder}: none of its runs has a checkpoint to draw with. Train it first."
        )
    return sorted(found, key=lambda one: (one.budget, one.loss or float("inf")))


def _number(values: dict[str, Any], key: str) -> float:
    return number_of(values.get(key)) or 0.0


def best_of(found: list[Found]) -> list[Found]:
    """Return the first run of each budget: that of least loss."""
    first: dict[float, Found] = {}
    for one in found:
        first.setdefault(one.budget, one)
    return list(first.values())


@command(__doc__, keys=PlaygroundConfig, kept="drawn clips are kept; the same command goes on.")
def main(argv: list[str]) -> int:
    """Find the runs, serve the page, print where."""
    config = parse(PlaygroundConfig, argv)
    if bool(config.study) == bool(config.run):
        raise ValueError("study= or run=: one of them must name a folder. See --help.")
    found = found_in(Path(config.study or config.run))
    if config.rungs is Which.best:
        found = best_of(found)
    with doing("starting the playground"):
        from trainer.playground.desk import Desk, Rung
        from trainer.playground.server import check_installed, listen, serve

        check_installed()
        listener = listen(config.host, config.port)
        rungs = [Rung(one.run.name, one.run.path, one.title, one.note) for one in found]
        desk = Desk(rungs, Path(config.out))
    host, port = listener.getsockname()[:2]
    hosts = ["*"] if config.host in ("0.0.0.0", "::") else ["localhost", "127.0.0.1", config.host]
    print(f"playground: http://{host}:{port} (Ctrl-C ends it)", flush=True)
    try:
        serve(desk, listener, hosts)
    except KeyboardInterrupt:  # how it ends
        pass
    finally:
        desk.close()
    return 0


if __name__ == "__main__":
    main.run()
