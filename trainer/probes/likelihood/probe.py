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
twin, out}, of which those whose out is there are kept.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data.command_line import parse
from data.files import write_json
from data.shell import command
from trainer.probes.likelihood.config import FILE, LikelihoodConfig


@command(__doc__, keys=LikelihoodConfig, doing="measuring crossed pairs")
def main(argv: list[str]) -> int:
    """Parse the command line, measure, write and print the table."""
    from trainer.probes.likelihood.report import table
    from trainer.probes.likelihood.subject import Memo, probe

    config = parse(LikelihoodConfig, argv)
    config.check()
    memo, failed = Memo(), []
    for one in each(config):
        try:
            result = probe(one, memo)
        except ValueError as error:  # the others are asked all the same
            if not config.couples:
                raise
            failed.append(str(error))
            continue
        out = Path(one.out) if one.out else Path(one.run) / FILE
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
        print(table(result))
        print(f"written: {out}")
    if failed:
        raise ValueError(f"couples={config.couples}: {len(failed)} not asked. {' '.join(failed)}")
    return 0


def each(config: LikelihoodConfig) -> Iterator[LikelihoodConfig]:
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


if __name__ == "__main__":
    main.run()
