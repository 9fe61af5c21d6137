"""SLURM's commands as functions: no shell, a time limit each, answers as plain values."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.shell import Refused

OLDEST = (22, 5)
_SECONDS = 60.0
# Fields of squeue; the reason comes last, since it may hold anything.
_FIELDS = ("%F", "%K", "%T", "%j", "%N", "%M", "%r")
_TRIES, _PAUSE_SECONDS = 5, 1.0


DEFAULT_MAX_ARRAY = 1001  # SLURM's own
# What sbatch says where a person may not have more jobs in the queue now, by their association or
# quality of service, or where the controller holds no more of anybody's (MaxJobCount).
_NO_ROOM = re.compile(r"\b(?:Assoc|QOS)\w*Submit\w*Limit\b|temporarily unable to accept job")
# A person's defaults of these would hide jobs from us.
_DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_")


class SlurmError(Refused):
    """The controller does not answer, or refuses."""


class NoRoomError(SlurmError):
    """The queue takes no more jobs now; it may later. of_person: fewer may fit, unlike others'."""

    def __init__(self, text: str, of_person: bool) -> None:
        super().__init__(text)
        self.of_person = of_person


@dataclass(frozen=True)
class Site:
    """What the controller says. version: (year, month). max_array: most runs of one array."""

    version: tuple[int, int]
    max_array: int


@dataclass(frozen=True)
class QueueEntry:
    """One job, or one run of an array, that is waiting or running.

    job: as scontrol and scancel take it, 12 or 12_3. index: in its array, 0 without one.
    state: such as PENDING, RUNNING, COMPLETING. reason: why it waits.
    """

    job: str
    index: int
    state: str
    name: str
    nodes: str
    reason: str


def site() -> Site:
    """Ask the controller what decides how jobs are submitted. Raises ValueError, SlurmError."""
    return Site(version(), max_array(settings()))


def settings(tries: int = _TRIES) -> dict[str, str]:
    """Return the controller's settings as ``scontrol show config`` prints them."""
    return parse_settings(run(["scontrol", "show", "config"], tries))


def parse_settings(text: str) -> dict[str, str]:
    """Return key and value of each line that has both."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def max_array(settings: dict[str, str]) -> int:
    """Return the most runs of one array: SLURM's default where the site does not say.

    Indices run from 0 to MaxArraySize - 1; 0 turns arrays off. A site may allow fewer at once.
    """
    wanted = dict(
        part.split("=", 1)
        for part in settings.get("SchedulerParameters", "").split(",")
        if "=" in part
    )
    said = [settings.get("MaxArraySize", ""), wanted.get("max_array_tasks", "")]
    limits = [int(number) for number in said if number.isdecimal()]
    return max(1, min(limits, default=DEFAULT_MAX_ARRAY))


def version(tries: int = _TRIES) -> tuple[int, int]:
    """Return SLURM's version as (year, month); raise ValueError where there is none, or too old."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "cluster.kind=slurm: needs the commands of SLURM, and there is no sbatch here. "
            "Use a login node of the cluster, or cluster=local."
        )
    text = run(["sbatch", "--version"], tries)
    found = parse_version(text)
    if found < OLDEST:
        raise ValueError(f"SLURM {text.strip()}: must be 22.05 or later. Ask your administrators.")
    return found


def parse_version(text: str) -> tuple[int, int]:
    """Return (year, month) of ``slurm 23.11.4`` or ``slurm-wlm 22.05.8``."""
    found = re.search(r"(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"sbatch --version: says {text.strip()!r}, not a version. Use SLURM.")
    return int(found[1]), int(found[2])


def queue(names: Iterable[str] = (), tries: int = _TRIES) -> list[QueueEntry]:
    """Return this user's jobs, or those of the given names, one entry for each run of an array."""
    argv = ["squeue", "--noheader", "--array", f"--format={'|'.join(_FIELDS)}"]
    argv += [f"--user={os.geteuid()}"]
    wanted = ",".join(names)
    argv += [f"--name={wanted}"] if wanted else []
    return parse_queue(run(argv, tries))


def parse_queue(text: str) -> list[QueueEntry]:
    """Return the entries of squeue's answer; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        parts = line.split("|", len(_FIELDS) - 1)
        if len(parts) != len(_FIELDS):
            continue
        job, index, state, name, nodes, _, reason = (part.strip() for part in parts)
        single = not index.isdigit()
        entry = QueueEntry(
            job if single else f"{job}_{index}",
            0 if single else int(index),
            state,
            name,
            nodes,
            reason,
        )
        found.append(entry)
    return found


def submit(script: Path, arguments: Sequence[str], env: dict[str, str]) -> str:
    """Submit a script from its own folder; return the job's id. Raises SlurmError."""
    argv = ["sbatch", "--parsable", *arguments, script.name]
    answer = run(argv, tries=1, cwd=script.parent, env=env)
    return answer.strip().split(";")[0]  # a federation adds the cluster's name


def cancel(jobs: Sequence[str], signal: str = "") -> None:
    """Cancel jobs; with a signal, send it to their supervisors instead. Unknown ones pass."""
    for start in range(0, len(jobs), 100):
        some = list(jobs[start : start + 100])
        run(["scancel", *([f"--signal={signal}", "--batch"] if signal else []), *some], allow={1})


def run(
    argv: Sequence[str],
    tries: int = _TRIES,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    allow: Iterable[int] = (),
) -> str:
    """Run a command and return what it printed; a controller that is busy is asked again.

    env: its variables; None takes ours, without a person's defaults for SLURM's commands. Raises
    SlurmError, and NoRoomError where the queue takes no more jobs.
    """
    if env is None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(_DEFAULTS)}
    error, said = "", ""
    for number in range(tries):
        if number:
            time.sleep(_PAUSE_SECONDS * 2 ** (number - 1))
        try:
            done = subprocess.run(
                argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as late:
            # sbatch itself waits for room that the controller lacks, longer than we wait for it.
            said = (late.stderr or b"").decode("utf-8", errors="replace")
            error = f"no answer in {_SECONDS:.0f} s"
            continue
        said = done.stderr
        if done.returncode == 0 or done.returncode in allow:
            return done.stdout
        # The last line says what failed, those before it how.
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        error = last.removeprefix(f"{argv[0]}: ")
    if found := _NO_ROOM.search(said):
        raise NoRoomError(f"{argv[0]} says {found[0]}", "Limit" in found[0])
    raise SlurmError(f"{argv[0]}: {error}")
