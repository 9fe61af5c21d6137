"""Watch a study while it runs.

usage: kinescale watch STUDY_FOLDER [--once] [--json] [--page[=FILE]] [--every=SECONDS]

examples:
  kinescale watch runs/demo                # a table that refreshes; Ctrl-C ends it
  kinescale watch runs/demo --once         # all runs, once
  kinescale watch runs/demo --json         # the same for a tool, once
  kinescale watch runs/demo --page         # and runs/demo/watch.html for a browser
  kinescale watch runs/demo >> watch.log   # in a file or pipe: plain lines

  --every=SECONDS   between two looks (default: 2 on a terminal, 10 elsewhere)

States: waiting (not started), starting (no step yet), running, quiet (no metrics for three minutes:
stopped, failed or slow), finished, or the status that result.json gives. Nothing is written but the
page, and nothing of a run is touched; it ends by itself two minutes after all planned runs ended.
"""

import json
import time
from pathlib import Path

from data.shell import command

LINGER_SECONDS = 120.0  # the next phase of a study is planned after the last one has ended


@command(__doc__, prints_only=True)
def main(argv: list[str]) -> int:
    """Watch a study until it ends or until Ctrl-C."""
    folder, options = _parse(argv)
    try:
        return _watch(folder, options)
    except KeyboardInterrupt:  # how watching ends
        return 0


def _parse(argv: list[str]) -> tuple[Path, dict[str, str]]:
    """Return the folder and the options, --flags without a value as ''."""
    folders = [a.removeprefix("study=") for a in argv if not a.startswith("--")]
    options = dict(a.removeprefix("--").partition("=")[::2] for a in argv if a.startswith("--"))
    unknown = sorted(set(options) - {"once", "json", "page", "every"})
    if unknown:
        raise ValueError(
            f"--{unknown[0]}: is not an option. Use --once, --json, --page or --every."
        )
    if len(folders) != 1:
        raise ValueError(f"study={folders}: must be one folder. Give a study's, as runs/demo.")
    every = options.get("every", "1")
    try:
        valid = 0.1 <= float(every) <= 86400
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"--every={every}: must be seconds from 0.1 to 86400. Use 5.")
    return Path(folders[0]), options


def _watch(folder: Path, options: dict[str, str]) -> int:
    from rich.console import Console
    from rich.live import Live

    from sweeps.watch import show
    from sweeps.watch.state import State, StudyState, Watcher

    watcher, console = Watcher(folder), Console(highlight=False)
    every = float(options.get("every") or (2.0 if console.is_terminal else 10.0))
    page = Path(options["page"] or folder / "watch.html") if "page" in options else None

    def look() -> StudyState:
        state = watcher.look()
        if page is not None:
            show.write_page(page, state, every)
        return state

    state = look()
    if "json" in options:
        print(json.dumps(state.to_dict(), indent=1))
        return 0
    if "once" in options:
        if not console.is_terminal:
            console = Console(width=max(console.width, 140), highlight=False)
        console.print(show.terminal(state))
        return 0

    def over() -> bool:
        return state.over and watcher.plan_age() > LINGER_SECONDS

    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(show.terminal(state, console.height), refresh=True)
                if over():
                    return 0
                time.sleep(every)
                state = look()
    before: dict[str, State] = {}
    while True:
        for line in [*show.changes(before, state), show.summary(state)]:
            print(line, flush=True)
        if over():
            return 0
        before = {run.folder: run.state for run in state.runs}
        time.sleep(every)
        state = look()


if __name__ == "__main__":
    main.run()
