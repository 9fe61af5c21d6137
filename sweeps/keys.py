"""Every key of every config, as the page ``docs/config.md`` shows them.

usage: python -m sweeps.keys                     all keys, as text
       python -m sweeps.keys --markdown          the page: redirect it to docs/config.md

Key, type, default, bounds and meaning are those that the schemas declare beside their fields and
that composing checks; nothing is written twice. One kind of run: python -m trainer.train --keys.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from data.keys import all_lines, markdown_table, sections
from launch.pipe import end_with_reader


@dataclass(frozen=True)
class Schema:
    """A schema that a command composes; ``path`` stands before its keys on the command line."""

    title: str
    schema: type
    command: str
    path: str = ""


def schemas() -> tuple[Schema, ...]:
    """Return every schema of the five rooms that a person sets values of."""
    from data.config import DemoConfig, IngestConfig, WorldsConfig
    from data.derive.crop import CropConfig
    from data.derive.reshape import ReshapeConfig
    from launch.config import ClusterConfig
    from launch.planner.config import PlanConfig, SearchConfig
    from launch.planner.machine import MachineConfig
    from sweeps.kinds.arms.config import ArmsConfig
    from sweeps.kinds.isoflop.config import StudyConfig
    from sweeps.kinds.points.config import PointsConfig
    from sweeps.ladder.table import TableConfig
    from sweeps.predict.price import PriceConfig
    from trainer.captioner.caption import CaptionJob
    from trainer.captioner.config import CaptionerRun
    from trainer.config import RunConfig
    from trainer.generate.expand import ExpandJob
    from trainer.generate.generate import Request
    from trainer.probes.common import ProbeConfig
    from trainer.probes.score import ScoreConfig
    from trainer.vae.config import PerceptualRun, VaeRun
    from trainer.vae.statistics import StatisticsConfig

    return (
        Schema("A run", RunConfig, "trainer.train"),
        Schema("A codec's training", VaeRun, "trainer.train experiment=vae_tiny"),
        Schema(
            "A perceptual encoder's training",
            PerceptualRun,
            "trainer.train experiment=perceptual_tiny",
        ),
        Schema("A captioner's training", CaptionerRun, "trainer.train experiment=captioner_tiny"),
        Schema("A cluster", ClusterConfig, "launch.submit cluster=slurm", "cluster."),
        Schema("A machine", MachineConfig, "launch.plan machine=h100", "machine."),
        Schema("What a plan assumes", PlanConfig, "launch.plan", "plan."),
        Schema("A search for layouts", SearchConfig, "launch.plan --search", "search."),
        Schema("An isoFLOP study", StudyConfig, "sweeps.run study=demo"),
        Schema("A study of arms", ArmsConfig, "sweeps.run study=captions"),
        Schema("A study of points", PointsConfig, "sweeps.run study=cpu_seeds"),
        Schema("Foreign files into a data set", IngestConfig, "data.ingest"),
        Schema("The demo's data", DemoConfig, "data.demo"),
        Schema("Filmed worlds", WorldsConfig, "data.worlds"),
        Schema("A cropped data set", CropConfig, "data.derive.crop"),
        Schema("A smaller or shorter data set", ReshapeConfig, "data.derive.reshape"),
        Schema("Captions for a data set", CaptionJob, "trainer.captioner.caption"),
        Schema("Longer prompts", ExpandJob, "trainer.generate.expand"),
        Schema("A drawn clip", Request, "trainer.generate"),
        Schema("A loss measured again", ScoreConfig, "trainer.probes.score"),
        Schema("A probe of drawn clips", ProbeConfig, "trainer.probes.attributes, .framing"),
        Schema("Statistics of latents", StatisticsConfig, "trainer.vae.statistics"),
        Schema("A ladder of sizes", TableConfig, "sweeps.ladder"),
        Schema("What a loss costs", PriceConfig, "sweeps.predict.economics"),
    )


def page() -> str:
    """Return ``docs/config.md``: sections that several schemas share stand once."""
    parts = [HEAD]
    seen: dict[tuple[type, str], str] = {}
    for root in schemas():
        parts.append(f"## {root.title}\n\n`python -m {root.command}`")
        parts += _parts(root, seen)
    return "\n\n".join(parts) + "\n"


def main(argv: list[str]) -> int:
    """Print the keys; return the exit status."""
    if argv not in ([], ["--markdown"]):
        print(__doc__)
        return 0 if argv in (["-h"], ["--help"]) else 2
    if argv:
        print(page(), end="")
    else:
        for root in schemas():
            keys = all_lines(root.schema, root.path)
            print(f"==== {root.title}: python -m {root.command}\n\n{keys}")
    return 0


HEAD = """# Every key of every config

<!-- Made by `python -m sweeps.keys --markdown > docs/config.md` from the schemas: edit those. -->

A value out of bounds is refused where the config is composed, by its key, its rule and a remedy:
`optim.beta2=2: must be below 1. Use 0.98.` Every number must be finite. The defaults are those of
the schemas; the files under `conf/` of each room set others."""


def _parts(root: Schema, seen: dict[tuple[type, str], str]) -> Iterator[str]:
    for section in sections(root.schema, root.path):
        known = seen.setdefault((section.schema, section.path), root.title)
        name = f"`{section.path}KEY`" if section.path else ""
        if known != root.title:
            yield f"{name}: as under “{known}”."
        elif section.fields:
            head = f"**{name}** {section.sentence}" if name else section.sentence
            yield f"{head}\n\n{markdown_table(section)}"


if __name__ == "__main__":
    end_with_reader()
    sys.exit(main(sys.argv[1:]))
