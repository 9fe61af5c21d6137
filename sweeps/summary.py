"""Send a study's law to W&B: tables, figures, page and files, in the group of its runs.

usage: kinescale summary STUDY_DIR [mode=offline] [project=kinescale] [seconds=80]

example:
  kinescale summary runs/demo mode=online

``kinescale run`` does it at a study's end, to where log.wandb of the study's base sends its runs.
A process of its own sends, in the time given, so that no server and no library ends a study; what
it says is in STUDY_DIR/wandb/summary.log.
"""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.shell import command
from sweeps.report.checklist.checklist import checklist
from sweeps.report.inputs.isoflop import Inputs, read_inputs
from sweeps.report.pages.isoflop import study_tables
from sweeps.report.tables.isoflop import Cell, Table, make_table
from sweeps.report.wording import finding
from sweeps.study.results import COLUMNS
from sweeps.workspaces import write_definition
from trainer.log_config import WandbMode
from trainer.mirror.tail import read_sent, write_sent
from trainer.mirror.wandb_run import About, own_environment, start_wandb

_FILES = ("runs.csv", "law.json", "study.json", "data.json", "study.yaml", "report/index.html")
_WORDS = ("name", "reason", "phase", "cluster")  # columns of runs.csv that are text
LOG_FILE = Path("wandb") / "summary.log"
START_SECONDS = 60.0  # to start, read the study and write it, beside what W&B may take
_LATER = "Send it later with: kinescale summary {folder} mode=online"
# What W&B calls its modes, and what they are here.
_MODES = {
    "online": WandbMode.online, "run": WandbMode.online, "offline": WandbMode.offline,
    "dryrun": WandbMode.offline, "disabled": WandbMode.disabled,
}  # fmt: skip
_RISING = (WandbMode.disabled, WandbMode.offline, WandbMode.online)


def summary_mode(log_wandb: WandbMode, environment: Mapping[str, str]) -> WandbMode:
    """Return where a summary goes: where the runs go, or less far if WANDB_MODE says so.

    Raises ValueError for a WANDB_MODE that is none, so that a study ends before it begins.
    """
    said = environment.get("WANDB_MODE", "")
    if not said:
        return log_wandb
    if said not in _MODES:
        raise ValueError(
            f"WANDB_MODE={said}: is no mode of a study. Use {', '.join(_MODES)}, or unset it: "
            "log.wandb of the study's base decides."
        )
    return min(log_wandb, _MODES[said], key=_RISING.index)


def send_summary(
    folder: Path, mode: WandbMode, project: str, seconds: float, ended: bool = False
) -> bool:
    """Send a study's summary from a process of its own; return whether it ended well in time.

    ended: the study did just now, which W&B alerts of.
    Nothing that happens there is raised here: a line says what did.
    """
    if mode is WandbMode.disabled:
        return True
    words = [sys.executable, "-m", "sweeps.summary", str(folder), "--here"]
    words += [f"mode={mode.value}", f"project={project}", *(["--ended"] if ended else [])]
    environment = own_environment() | {"WANDB_MODE": mode.value, "OMP_NUM_THREADS": "1"}
    why = ""
    try:
        (folder / LOG_FILE).parent.mkdir(exist_ok=True)
        with (folder / LOG_FILE).open("ab") as out:
            why = _within(words, out, environment, seconds)
    except OSError as error:
        why = f"cannot be started ({error})"
    if why:
        line = f"W&B: the study's summary {why}: {folder / LOG_FILE}."
        print(line, _LATER.format(folder=folder), file=sys.stderr)
    return not why


def _within(words: list[str], out: Any, environment: dict[str, str], seconds: float) -> str:
    """Run a process for so many seconds at most; return why it failed, nothing where it did not.

    It has a session of its own, and takes the service that wandb starts along when it is ended.
    """
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        status = process.wait(seconds)
        return f"ended with status {status}" if status else ""
    except subprocess.TimeoutExpired:
        return f"did not end in {seconds:g} s"
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def log_summary(folder: Path, mode: WandbMode, project: str, ended: bool = False) -> None:
    """Log tables, law, figures, page and files of a study's folder; wandb's errors are raised.

    Also writes ``wandb_report.json``, the definition of a report, where wandb-workspaces is there.
    """
    import wandb

    inputs = read_inputs(folder)
    law, report = inputs.law, folder / "report" / "index.html"
    name = str(inputs.study.get("name") or folder.resolve().name)
    config = {"question": str(inputs.study.get("question") or ""), "budgets": inputs.budgets}
    tags = ["law", str(law.get("form") or "no-law")]
    about = About(f"{name}-law", project, name, "law", tags, config, _stored_id(folder))
    run = start_wandb(about, mode, folder)
    cells = [[_cell(run_.values, column) for column in COLUMNS] for run_ in inputs.runs]
    logged: dict[str, Any] = {"runs": wandb.Table(columns=list(COLUMNS), data=cells)}
    for title, table in summary_tables(inputs).items():
        columns, values = plain_table(table)
        logged[f"tables/{title}"] = wandb.Table(columns=columns, data=values)
    for figure in sorted((report.parent / "figures").glob("*.svg")):
        logged[f"figures/{figure.stem}"] = wandb.Html(figure.read_text("utf-8"), inject=False)
    picture = report.parent / "figures" / "law.png"
    if picture.exists():
        logged["law_figure"] = wandb.Image(str(picture))
    logged["report"] = wandb.Html(report.read_text("utf-8"), inject=False)
    run.log({"step": 0} | logged)
    run.summary.update(summary_numbers(law))
    run.log_artifact(_artifact(folder, name))
    if ended:
        run.alert(title=f"{name}: ended", text=finding(inputs), level="INFO")
    run.finish()
    if path := write_definition(inputs, project):
        print(f"W&B report: {path}; publish it with kinescale workspaces --help")
    else:
        print("W&B report: not written, wandb-workspaces is not installed.")


def _stored_id(folder: Path) -> str:
    """Return the id of a study's W&B run: two people's studies of one name are two runs."""
    sent = read_sent(folder)
    write_sent(folder, sent)
    return sent.id


def _cell(row: Mapping[str, str], column: str) -> float | str | None:
    """Return a cell of runs.csv as the table of all runs shows it; None where it is empty."""
    text = row.get(column, "")
    if column in _WORDS:
        return text
    try:
        return float(text) if text else None
    except ValueError:
        return None


def summary_tables(inputs: Inputs) -> dict[str, Table]:
    """Return the tables of the page that a summary holds, by name; absent ones are left out."""
    found = {name: table for name, table in study_tables(inputs).items() if name != "runs"}
    rows = [
        [Cell(a.question), Cell(a.status.value), Cell(a.text)] for a in checklist(inputs)
    ]  # fmt: skip
    found["checklist"] = make_table("Checklist", ("item", "status", "answer"), rows)
    return {name: table for name, table in found.items() if table is not None}


def plain_table(table: Table) -> tuple[list[str], list[list[float | str]]]:
    """Return columns of one type each: numbers where every cell that says something has one."""
    names = [name or "name" for name in table.columns or ("what", "value")]
    columns = list(zip(*table.rows, strict=True)) if table.rows else []
    numeric = [all(c.value is not None or not c.text.strip("– ") for c in cells)
               and any(c.value is not None for c in cells) for cells in columns]  # fmt: skip
    values = [
        [(math.nan if cell.value is None else cell.value) if number else cell.text
         for cell, number in zip(row, numeric, strict=True)]
        for row in table.rows
    ]  # fmt: skip
    return names, values


def summary_numbers(law: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a law that one sorts and plots studies by."""
    held_out, exponents = law.get("held_out") or {}, law.get("exponents") or {}
    found = {f"law/{name}": value for name, value in (law.get("coefficients") or {}).items()}
    for key in ("predicted", "actual", "relative_error", "skill", "extrapolation_factor"):
        found[f"held_out/{key}"] = held_out.get(key)
    for key, item in exponents.items():
        found[f"exponent/{key}"] = (item or {}).get("params")
    for key in ("objective", "scatter", "noise_floor"):
        found[f"fit/{key}"] = law.get(key)
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


def _artifact(folder: Path, study: str) -> Any:
    """Return the study's files, from which anybody can refit the law and build the page again."""
    import wandb

    name = re.sub(r"[^\w.-]", "-", f"{study}-study")[:128]
    artifact = wandb.Artifact(name, type="study")
    for file in _FILES:
        if (folder / file).is_file():
            artifact.add_file(str(folder / file), name=file)
    return artifact


@command(__doc__)
def main(argv: list[str]) -> int:
    """Send the summary of the study named on the command line; exit status 1 where it failed."""
    here = "--here" in argv  # in this process, as send_summary starts it
    folders = [w for w in argv if w not in ("--here", "--ended") and "=" not in w]
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    if len(folders) != 1 or set(given) - {"mode", "project", "seconds"}:
        raise ValueError(
            f"{' '.join(argv)}: must be one study's folder and its options. See --help."
        )
    folder, project = Path(folders[0]), given.get("project", "kinescale")
    if not (folder / "report" / "index.html").is_file():
        raise ValueError(
            f"STUDY_DIR={folder}: has no page. Run kinescale report {folder}, then this again."
        )
    if given.get("mode", "offline") not in _MODES:
        raise ValueError(f"mode={given['mode']}: is not known. Use offline or online.")
    mode = _MODES[given.get("mode", "offline")]
    try:
        seconds = float(given.get("seconds", START_SECONDS + 20))
    except ValueError:
        raise ValueError(f"seconds={given['seconds']}: must be a number. Use 80.") from None
    if here:
        log_summary(folder, mode, project, ended="--ended" in argv)
        return 0
    return 0 if send_summary(folder, mode, project, seconds) else 1


if __name__ == "__main__":
    main.run()
