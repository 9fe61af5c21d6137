"""Train one run.

usage: kinescale train [key=value ...]      compose a run, freeze it, train it
       kinescale train --run FOLDER         start or resume a frozen run
       kinescale train check=true ...       look whether it would go, and train nothing; --json

examples:
  kinescale train experiment=cpu_smoke data.root=datasets/demo/video
  kinescale train experiment=cpu_demo horizon.flops=1e11
  kinescale train experiment=cpu_demo horizon.steps=200 data.packs_per_step=2 \\
      parallel.processes=2 parallel.zero_stage=1
  kinescale train experiment=vae_tiny data.root=datasets/demo/video

The command line is Hydra's: group=choice selects a file under trainer/conf, key=value sets a value.
--cfg job prints the composed run and stops; --keys KIND prints every key of a kind of run, with its
bounds and meaning. What is trained stands in the run, as kind, and an experiment's file says it:
  kind=diffusion   the diffusion transformer, unless another is said
  kind=codec       a video compression network
  kind=perceptual  the encoder that such a network is judged by
  kind=captioner   a network that describes clips
A run is a folder (run_root/name-hash); the same command resumes it, a finished run is not repeated.
check=true looks at data, splits, tokens, disk and keys, and trains one step in a folder that it
removes: a line each, then go (status 0) or no go (2). Every start does what of it costs nothing.
"""

import logging
import os
import warnings
from pathlib import Path

from data.checks import tell
from data.dataset.remote import FetchError
from data.secrets import masked
from data.shell import command
from trainer.compose import shown, split_cfg
from trainer.config import RunKind
from trainer.kinds import (
    KINDS,
    AnyRun,
    compose_any,
    folder_of,
    freeze_any,
    load_any,
    processes_of,
    start_command,
)
from trainer.preflight import look, refuse_unready, try_step
from trainer.run.attempt import Busy, mark_refused
from trainer.run.start import STOPPED, StopFlag

log = logging.getLogger("trainer")


def _groups() -> str:
    conf = Path(__file__).parent / "conf"
    found = {
        group.name: sorted(file.stem for file in group.glob("*.yaml"))
        for group in sorted(conf.iterdir())
        if group.is_dir()
    }
    return "groups: " + "; ".join(f"{group}={'|'.join(names)}" for group, names in found.items())


@command(__doc__, also=_groups, kept="what was saved is kept; the same command goes on")
def main(argv: list[str]) -> int:
    """Parse the command line and train; return the exit status."""
    if "check=true" in argv:
        return _check([word for word in argv if word not in ("check=true", "--json")], argv)
    if argv[0] == "--run":
        return _train_frozen(_folder(argv))
    if argv[0] == "--keys":
        print(_keys(argv[1:]), end="")
        return 0
    only_shown, words = split_cfg(argv)
    if only_shown:
        print(shown(compose_any(words)))
        return 0
    return _launch(compose_any(words))


def _folder(argv: list[str]) -> Path:
    if len(argv) != 2:
        raise ValueError(f"--run {argv[1:]}: takes one run folder. See --help.")
    return Path(argv[1])


def _train_frozen(folder: Path) -> int:
    """Train a frozen run; say in its folder where no other attempt could do better."""
    try:
        return train_folder(folder)
    except (Busy, FetchError):  # what another attempt, or the network, may be over by then
        raise
    except ValueError as error:
        if folder.is_dir():
            mark_refused(folder, masked(str(error), os.environ))
        raise


def _check(words: list[str], argv: list[str]) -> int:
    """Look whether a run would go, and say so."""
    run = load_any(_folder(words)) if words[:1] == ["--run"] else compose_any(words)
    checks = look(run)
    if not any(check.is_bad for check in checks):
        checks.append(try_step(run))
    return tell(checks, "--json" in argv)


def _keys(words: list[str]) -> str:
    """Return the keys of one kind of run, of the diffusion transformer's where none is named."""
    from data.keys import all_lines

    kind = words[0] if len(words) == 1 else RunKind.diffusion
    if len(words) > 1 or kind not in list(RunKind):
        known = ", ".join(RunKind)
        raise ValueError(f"--keys {' '.join(words)}: must be one of {known}. Use codec.")
    return all_lines(KINDS[RunKind(kind)].schema)


def _launch(run: AnyRun) -> int:
    """Freeze a composed run and train it here, or in as many processes as it asks for."""
    if not (folder_of(run) / "result.json").exists():
        refuse_unready(run)  # before anything is written
    folder = freeze_any(run)
    print(f"run folder: {folder}", flush=True)
    if processes_of(run) == 1 or "WORLD_SIZE" in os.environ:
        return train_folder(folder)
    command = start_command(run, folder)
    os.execv(command[0], command)  # becomes torchrun, so that signals reach it


def train_folder(folder: Path) -> int:
    """Train a frozen run of any kind in this process, one of its ranks; return the exit status."""
    stop = StopFlag()
    run = load_any(folder)
    if (folder / "result.json").exists():
        print(f"{folder}: is finished (result.json exists).")
        return 0
    refuse_unready(run)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
    warnings.filterwarnings("ignore", message=r".*is deprecated. Please use.*")
    finished = KINDS[run.kind].train(run, folder, stop)
    if not finished:
        log.info("stopped by a signal; run the same command to continue")
    return 0 if finished else STOPPED


if __name__ == "__main__":
    main.run()
