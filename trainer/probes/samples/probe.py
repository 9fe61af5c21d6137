"""Let a trained run go on from true clips of tiny worlds, and read what it drew.

usage: kinescale continuations run=FOLDER [twin=FOLDER] [key=value ...]

example:
  kinescale continuations run=runs/law-1e12 twin=runs/twin-1e12 worlds=[strip] clips=64
keys: worlds=[] (all that the run saw) clips=64 seed=0 steps=24 shown=0 out= couples=
The frames before the splice are given, the others are drawn without a caption, and the world's own
reader finds the state in their pixels. Stated are how far bodies are from where they ought to be,
frame by frame; broken rules in 100 frames by kind (vanish, appear, colour, place, size); and the
share of clips of which all is right. The ceiling is the true clip through codec and reader; the
floors are a clip that stands still, its own frames shuffled, and another clip's. The file is
RUN/samples.json unless out= names another; couples=FILE.json asks many in turn. shown=3 keeps the
first three clips of each as pictures in the file, and three that were drawn with nothing given.
"""

from pathlib import Path
from typing import Any

from data.command_line import parse
from data.shell import command
from trainer.probes.couples import in_turn, write_answer
from trainer.probes.samples.config import FILE, SamplesConfig

ORDER = ("true", "run", "twin", "static", "shuffled", "wrong")


@command(__doc__, keys=SamplesConfig, doing="drawing continuations")
def main(argv: list[str]) -> int:
    """Parse the command line, draw, judge, write and print the table."""
    from trainer.probes.samples.continuations import probe

    config = parse(SamplesConfig, argv)
    config.check()

    def ask(one: SamplesConfig, out: Path) -> None:
        result = probe(one)
        write_answer(out, result)
        print(table(result))
        print(f"written: {out}")

    in_turn(config, FILE, ask)
    return 0


def table(result: dict[str, Any]) -> str:
    """Lay a probe's result out in lines, a row for each source."""
    lines = [f"run {result['run']}, twin {result['twin'] or 'none'}"]
    for world in result["worlds"]:
        sources = world["sources"]
        kinds = next(iter(sources.values()))["by_kind"]
        lines += ["", f"{world['world']}: {', '.join(world['kinds'])}"]
        lines.append(
            f"  {'':<9} pixels away by frame   breaks in 100 frames   "
            + " ".join(f"{kind:>7}" for kind in kinds)
            + "   all right"
        )
        for name in (name for name in ORDER if name in sources):
            of = sources[name]
            away = " ".join("  --" if at["value"] is None else f"{at['value']:4.1f}"
                            for at in of["away"])  # fmt: skip
            low, high = of["breaks"]["low"], of["breaks"]["high"]
            rates = " ".join(f"{rate:7.1f}" for rate in of["by_kind"].values())
            lines.append(
                f"  {name:<9} {away:<22} {of['breaks']['value']:6.1f} ({low:.1f} to {high:.1f})"
                f"   {rates}   {of['parts']['all']:9.2f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main.run()
