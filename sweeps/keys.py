"""Every key of every config, as the page ``docs/config.md`` shows them.

usage: kinescale keys                     all keys, as text
       kinescale keys --markdown          the page: redirect it to docs/config.md

Key, type, default, bounds and meaning are those that the schemas declare beside their fields and
that composing checks; nothing is written twice. One kind of run: kinescale train --keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from data.keys import all_lines, markdown_table, sections
from data.shell import command


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
    from data.derive.index import IndexConfig
    from data.derive.reshape import ReshapeConfig
    from launch.config import ClusterConfig
    from launch.planner.config import PlanConfig, SearchConfig
    from launch.planner.machine import MachineConfig
    from sweeps.kinds.arms.config import ArmsConfig
    from sweeps.kinds.emergence.config import EmergenceConfig
    from sweeps.kinds.isoflop.config import StudyConfig
    from sweeps.kinds.points.config import PointsConfig
    from sweeps.ladder.table import TableConfig
    from sweeps.playground import PlaygroundConfig
    from sweeps.predict.price import PriceConfig
    from trainer.captioner.config import CaptionerRun
    from trainer.captioner.job import CaptionJob
    from trainer.config import RunConfig
    from trainer.encode.job import EncodeJob
    from trainer.generate.expand import ExpandJob
    from trainer.generate.request import Request
    from trainer.probes.common import ProbeConfig
    from trainer.probes.likelihood.config import LikelihoodConfig
    from trainer.probes.samples.config import SamplesConfig
    from trainer.probes.score import ScoreConfig
    from trainer.probes.tasks.config import TasksConfig
    from trainer.vae.config import PerceptualRun, VaeRun
    from trainer.vae.statistics import StatisticsConfig

    return (
        Schema("A run", RunConfig, "train"),
        Schema("A codec's training", VaeRun, "train experiment=vae_tiny"),
        Schema(
            "A perceptual encoder's training",
            PerceptualRun,
            "train experiment=perceptual_tiny",
        ),
        Schema("A captioner's training", CaptionerRun, "train experiment=captioner_tiny"),
        Schema("A cluster", ClusterConfig, "submit cluster=slurm", "cluster."),
        Schema("A machine", MachineConfig, "plan machine=h100", "machine."),
        Schema("What a plan assumes", PlanConfig, "plan", "plan."),
        Schema("A search for layouts", SearchConfig, "plan --search", "search."),
        Schema("An isoFLOP study", StudyConfig, "run study=demo"),
        Schema("A study of arms", ArmsConfig, "run study=captions"),
        Schema("A study of points", PointsConfig, "run study=cpu_seeds"),
        Schema("A study of emergence", EmergenceConfig, "run study=cpu_emergence"),
        Schema("Foreign files into a data set", IngestConfig, "ingest"),
        Schema("The demo's data", DemoConfig, "demo-data"),
        Schema("Filmed worlds", WorldsConfig, "worlds"),
        Schema("A cropped data set", CropConfig, "crop"),
        Schema("A smaller or shorter data set", ReshapeConfig, "reshape"),
        Schema("Foreign shards as a data set", IndexConfig, "index"),
        Schema("Captions for a data set", CaptionJob, "caption"),
        Schema("Latents of a data set", EncodeJob, "encode"),
        Schema("Longer prompts", ExpandJob, "expand"),
        Schema("A drawn clip", Request, "generate"),
        Schema("A page that draws", PlaygroundConfig, "playground"),
        Schema("Crossed pairs", LikelihoodConfig, "probe"),
        Schema("The numbers of all tasks", TasksConfig, "tasks"),
        Schema("Continuations", SamplesConfig, "continuations"),
        Schema("A loss measured again", ScoreConfig, "score"),
        Schema("A probe of drawn clips", ProbeConfig, "attributes`, `kinescale framing"),
        Schema("Statistics of latents", StatisticsConfig, "codec-statistics"),
        Schema("A ladder of sizes", TableConfig, "ladder"),
        Schema("What a loss costs", PriceConfig, "economics"),
    )


def page() -> str:
    """Return ``docs/config.md``: sections that several schemas share stand once."""
    parts = [HEAD]
    seen: dict[tuple[type, str], str] = {}
    for root in schemas():
        parts.append(f"## {root.title}\n\n`kinescale {root.command}`")
        parts += _parts(root, seen)
    return "\n\n".join(parts) + "\n"


@command(__doc__, needs_words=False, prints_only=True)
def main(argv: list[str]) -> int:
    """Print the keys; return the exit status."""
    if argv not in ([], ["--markdown"]):
        raise ValueError(f"{' '.join(argv)}: is unknown. Use --markdown, or nothing.")
    if argv:
        print(page(), end="")
    else:
        for root in schemas():
            keys = all_lines(root.schema, root.path)
            print(f"==== {root.title}: kinescale {root.command}\n\n{keys}")
    return 0


HEAD = """# Every key of every config

<!-- Made by `kinescale keys --markdown > docs/config.md` from the schemas: edit those. -->

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
    main.run()
