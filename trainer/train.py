"""Train one run.

usage: python -m trainer.train [key=value ...]      compose a run, freeze it, train it
       python -m trainer.train --run FOLDER         start or resume a frozen run

examples:
  python -m trainer.train experiment=cpu_smoke data.root=datasets/demo/video
  python -m trainer.train experiment=cpu_demo horizon.flops=1e11
  python -m trainer.train experiment=cpu_demo horizon.steps=200 data.packs_per_step=2 \\
      parallel.processes=2 parallel.zero_stage=1
  python -m trainer.train experiment=vae_tiny data.root=datasets/demo/video

The command line is Hydra's: group=choice selects a file under trainer/conf, key=value sets a value.
--cfg prints the composed run and stops; --keys prints every key with its bounds and meaning.
experiment=vae_* trains a video compression network, and experiment=captioner_* a captioner, each by
a schema of its own: --keys vae, --keys captioner. --keys perceptual is of trainer.vae.perceptual.
A run is a folder (run_root/name-hash); the same command resumes it, a finished run is not repeated.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from trainer.config import RunConfig, compose_run, freeze, load_run, run_name
from trainer.run.start import STOPPED, StopFlag, start_command

log = logging.getLogger("trainer")


def main(argv: list[str]) -> int:
    """Parse the command line and train; return the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        print("groups: " + _groups())
        return 0
    try:
        if argv[0] == "--run":
            if len(argv) != 2:
                raise ValueError(f"--run {argv[1:]}: takes one run folder. See --help.")
            return _resume(Path(argv[1]))
        if argv[0] == "--keys":
            print(_keys(argv[1:]), end="")
            return 0
        special = _special(argv)
        if special is not None:
            return special(argv)
        if argv[0] == "--cfg":
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(OmegaConf.structured(compose_run(argv[1:]))))
            return 0
        return _launch(compose_run(argv))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _keys(words: list[str]) -> str:
    """Return the keys of one kind of run, of the diffusion transformer's where none is named."""
    from data.keys import all_lines
    from trainer.captioner.config import CaptionerRun
    from trainer.vae.config import PerceptualRun, VaeRun

    schemas: dict[str, type] = {
        "diffusion": RunConfig, "vae": VaeRun, "captioner": CaptionerRun,
        "perceptual": PerceptualRun,
    }  # fmt: skip
    kind = words[0] if len(words) == 1 else "diffusion"
    if len(words) > 1 or kind not in schemas:
        raise ValueError(f"--keys {' '.join(words)}: must be one of {', '.join(schemas)}. Use vae.")
    return all_lines(schemas[kind])


def _special(argv: list[str]) -> Callable[[list[str]], int] | None:
    """Return what trains an experiment that is no diffusion transformer's."""
    names = [a.partition("=")[2] for a in argv if a.startswith("experiment=")]
    if any(name.startswith("vae_") for name in names):
        from trainer.vae.train import main as train_vae

        return train_vae
    if any(name.startswith("captioner_") for name in names):
        from trainer.captioner.train import main as train_captioner

        return train_captioner
    return None


def _resume(folder: Path) -> int:
    """Start or continue a frozen run of any kind."""
    text = (folder / "config.yaml").read_text() if (folder / "config.yaml").is_file() else ""
    sections = set(text.splitlines())
    if "vae:" in sections:
        from trainer.vae.train import train_here

        return train_here(folder)
    if "captioner:" in sections:
        from trainer.captioner.train import main as train_captioner

        return train_captioner(["--run", str(folder)])
    return _train_here(folder)


def _groups() -> str:
    conf = Path(__file__).parent / "conf"
    found = {
        group.name: sorted(file.stem for file in group.glob("*.yaml"))
        for group in sorted(conf.iterdir())
        if group.is_dir()
    }
    return "; ".join(f"{group}={'|'.join(names)}" for group, names in found.items())


def _launch(run: RunConfig) -> int:
    """Freeze a composed run and train it here, or in as many processes as it asks for."""
    folder = Path(run.run_root) / run_name(run)
    freeze(run, folder)
    print(f"run folder: {folder}", flush=True)
    if run.parallel.processes == 1 or "WORLD_SIZE" in os.environ:
        return _train_here(folder)
    command = start_command(run, folder)
    os.execv(command[0], command)  # becomes torchrun, so that signals reach it


def _train_here(folder: Path) -> int:
    """Train a frozen run in this process, one rank of it."""
    stop = StopFlag()
    run = load_run(folder)
    if (folder / "result.json").exists():
        print(f"{folder}: is finished (result.json exists).")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # torch 2.13 renamed collectives that deepspeed 0.19 still calls by their old names.
    warnings.filterwarnings("ignore", message=r".*is deprecated. Please use.*")
    from trainer.diffusion.attempt import train_run

    finished = train_run(run, folder, stop)
    if not finished:
        log.info("stopped by a signal; run the same command to continue")
    return 0 if finished else STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
