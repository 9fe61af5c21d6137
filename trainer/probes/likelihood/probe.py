"""Ask a trained run whether it finds broken laws less likely, by crossed pairs of tiny worlds.

usage: kinescale probe run=FOLDER [twin=FOLDER] [key=value ...]

example:
  kinescale probe run=runs/law-1e12 twin=runs/twin-1e12 worlds=[strip] pairs=256
keys: worlds=[] (all that the run saw) properties=[] (all) looks=[joint,given] pairs=128 seed=0
  clips=2048 out= couples=
A and B are two lawful clips that differ in one property alone; AB and BA have their endings
exchanged. The margin is how much larger the errors of AB + BA are than those of AA + BB, as a share
of the latter, under the same noise and times, with a 95 % interval over pairs (docs/emergence.md).
Beside it stand an untrained network, the best denoiser that knows means and covariances alone,
the exact one of a finite world, the pairs played backwards, a property that no law binds, and the
twin: the same model trained on clips without the law. A law counts as learned where run minus twin
excludes zero. Every pair is measured in the ways of looks=: jointly, at one time, and with the
frames before the splice given clean, where the others alone are asked for. The file is
RUN/probes.json unless out= names another. couples=FILE.json asks many in turn: a list of {run,
twin, out}, of which those whose out is there are kept. worlds=[rooms,physics] asks about a body
that changes its colour or its existence out of sight: there an untrained network is the bar.

Several processes share the pairs, on the device of the first run:
  torchrun --standalone --nproc_per_node 8 -m trainer.probes.likelihood.probe run=RUN
"""

from contextlib import suppress
from pathlib import Path

from data.command_line import parse
from data.shell import command
from trainer.config import load_run
from trainer.probes.couples import each, in_turn, write_answer
from trainer.probes.likelihood.config import FILE, LikelihoodConfig


@command(__doc__, keys=LikelihoodConfig, doing="measuring crossed pairs")
def main(argv: list[str]) -> int:
    """Parse the command line, measure, write and print the table."""
    from trainer.parallel.mesh import stop_mesh
    from trainer.parallel.workers import join_workers
    from trainer.probes.likelihood.report import table
    from trainer.probes.likelihood.subject import Memo, probe

    config = parse(LikelihoodConfig, argv)
    config.check()
    memo, mesh = Memo(), join_workers(device_asked(config))

    def ask(one: LikelihoodConfig, out: Path) -> None:
        result = probe(one, memo, mesh)
        if mesh.is_main:
            write_answer(out, result)
            print(table(result))
            print(f"written: {out}")

    in_turn(config, FILE, ask)
    if mesh.world > 1:
        mesh.barrier()
        stop_mesh(mesh)
    return 0


def device_asked(config: LikelihoodConfig) -> str:
    """Return the device of the first run that is there; others are told of when they are asked."""
    for one in each(config):
        with suppress(ValueError):
            return load_run(Path(one.run)).parallel.device
    return "auto"


if __name__ == "__main__":
    main.run()
