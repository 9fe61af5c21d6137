"""How right the captioner is on clips of worlds it has not seen, as Markdown.

usage: python -m benchmarks.captioner [root=DATASET] [weights=FOLDER] [key=value ...]

Captions are read back to attributes by rules and compared with what the true caption of the clip
states. Beside the captioner stands the majority caption: the commonest phrases of the training
captions, of all worlds, and of the clip's own world (which a captioner has to see first).
In brackets: 95 % bootstrap intervals over sources. The weights come from
kinescale train experiment=captioner_tiny
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from typing_extensions import Doc

from data.command_line import help_text, parse
from data.config import DataConfig
from data.dataset.sample import SampleInfo
from data.dataset.shards import read_index, read_truth
from trainer.captioner.journal import Entry
from trainer.captioner.local import LocalWriter
from trainer.captioner.parse import ATTRIBUTES, Lexicon, Stated, parts_of
from trainer.captioner.score import INVENTED, Tally, invented, majority, recall, table, tally
from trainer.captioner.weights import load_captioner


@dataclass
class BenchConfig:
    """What to measure."""

    root: Annotated[str, Doc("Data set with truth.")] = "datasets/worlds/video"
    train: Annotated[str, Doc("Split of the majority.")] = "train"
    split: Annotated[str, Doc("Split that is measured.")] = "val_worlds"
    weights: Annotated[str, Doc("Folder of the captioner.")] = "models/weights/captioner_tiny"
    samples: Annotated[int, Ge(0), Doc("Measured clips; 0 means all.")] = 0
    out: Annotated[str, Doc("Also write the counts and captions as JSON to this file.")] = ""


@dataclass(frozen=True)
class Known:
    """A clip with its truth and what its true caption states."""

    info: SampleInfo
    truth: dict[str, Any]
    stated: Stated


def read_known(config: BenchConfig) -> tuple[Lexicon, list[Known], list[Known]]:
    """Read truths of both splits; the lexicon is of the worlds, so it holds both."""
    found: list[list[tuple[SampleInfo, dict[str, Any]]]] = []
    for split in (config.train, config.split):
        pairs = [(i, read_truth(config.root, split, i)) for i in read_index(config.root, split)]
        found.append([(info, truth) for info, truth in pairs if truth is not None])
        if not found[-1]:
            raise ValueError(f"root={config.root}: {split} holds no truth. Use a simulated world.")
    lexicon = Lexicon.of(truth for pairs in found for _, truth in pairs)
    train, held_out = (
        [Known(info, truth, lexicon.read(info.caption)) for info, truth in pairs] for pairs in found
    )
    return lexicon, train, held_out[: config.samples or None]


def write_all(
    config: BenchConfig, writer: LocalWriter, known: Sequence[Known]
) -> tuple[dict[str, Entry], float]:
    """Caption clips; return the entries by key and the seconds it took, decoding included."""
    entries: dict[str, Entry] = {}
    started = time.monotonic()
    writer.run(
        DataConfig(root=config.root),
        config.split,
        [one.info for one in known],
        lambda entry: entries.update({entry.key: entry}),
    )
    return entries, time.monotonic() - started


def tallies_of(known: Sequence[Known], said: Mapping[str, Stated]) -> list[Tally]:
    """Count every clip; ``said`` is by key."""
    return [
        tally(
            one.info.source,
            one.truth["world"],
            said[one.info.key],
            one.stated,
            {name: [] for name in ATTRIBUTES} | parts_of(one.truth),
        )
        for one in known
    ]


def by_world(columns: Mapping[str, Sequence[Tally]]) -> list[str]:
    """Return a Markdown table with the two main figures, a row a world."""
    worlds = sorted({t.world for tallies in columns.values() for t in tallies})
    lines = [
        "| world | clips | measure | " + " | ".join(columns) + " |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for world in worlds:
        parts = [[t for t in tallies if t.world == world] for tallies in columns.values()]
        rows = [("all right", [recall(part) for part in parts])]
        rows += [
            (f"{name} invented", [invented(part, name) for part in parts]) for name in INVENTED
        ]
        for title, shares in rows:
            lines.append(
                f"| {world} | {len(parts[0])} | {title} | " + " | ".join(map(str, shares)) + " |"
            )
    return lines


def verdict(columns: Mapping[str, Sequence[Tally]]) -> str:
    """Say whether the first column beats the others with disjoint intervals."""
    first, *others = [(name, recall(tallies)) for name, tallies in columns.items()]
    best_name, best = max(others, key=lambda pair: pair[1].value)
    apart = first[1].low > best.high
    return (
        f"Attributes right: {first[0]} {first[1]}, {best_name} {best}: the intervals "
        f"{'are disjoint' if apart else 'OVERLAP or the captioner loses'}."
    )


def confidence(
    entries: Mapping[str, Entry], tallies: Sequence[Tally], known: Sequence[Known]
) -> str:
    """Say whether sure captions are better ones: recall by thirds of the confidence."""
    logprobs = np.array([entries[one.info.key].logprob or 0.0 for one in known])
    order = np.argsort(logprobs)
    thirds = [[tallies[i] for i in part] for part in np.array_split(order, 3)]
    shown = ", ".join(str(recall(part)) for part in thirds)
    return f"Attributes right by thirds of caption_logprob, least sure first: {shown}."


def measure(config: BenchConfig) -> tuple[list[str], dict[str, Any]]:
    """Return the Markdown lines, and all counts and captions as JSON values."""
    lexicon, train, held_out = read_known(config)
    trained = load_captioner(Path(config.weights))
    entries, seconds = write_all(config, LocalWriter(trained, 0.0, 0.9, 0, 16), held_out)
    failed = [entry for entry in entries.values() if entry.error]
    if failed:
        raise ValueError(f"{failed[0].key}: {failed[0].error}. Make the data set again.")
    overall = majority([one.stated for one in train])
    worlds = {one.truth["world"] for one in train}
    own = {w: majority([o.stated for o in train if o.truth["world"] == w]) for w in worlds}
    columns = {
        "captioner": tallies_of(held_out, {k: lexicon.read(e.caption) for k, e in entries.items()}),
        "majority of the world": tallies_of(
            held_out, {o.info.key: own.get(o.truth["world"], overall) for o in held_out}
        ),
        "majority": tallies_of(held_out, {o.info.key: overall for o in held_out}),
    }
    sources = [{o.info.source for o in part} for part in (train, held_out)]
    num_params = sum(p.numel() for p in trained.model.parameters())
    lines = [
        f"{len(held_out)} clips of {len(sources[1])} sources of {config.split}, "
        f"{len(sources[0] & sources[1])} of them in {config.train}.",
        f"Weights {trained.sha256[:12]}, {num_params:,} parameters, "
        f"trained on {trained.about.get('clips')} clips for {trained.about.get('steps')} steps.",
        "",
        *table(columns),
        "",
        *by_world(columns),
        "",
        verdict(columns),
        confidence(entries, columns["captioner"], held_out),
        f"{len(held_out) / seconds:.1f} clips a second (both captions, decoding included).",
    ]
    result = {
        "config": asdict(config),
        "weights_sha256": trained.sha256,
        "seconds": seconds,
        "tallies": {name: [asdict(t) for t in tallies] for name, tallies in columns.items()},
        "captions": [
            [o.info.key, o.info.caption, entries[o.info.key].caption, entries[o.info.key].logprob]
            for o in held_out
        ],
    }
    return lines, result


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if {"-h", "--help", "help"} & set(arguments):
        print(f"{__doc__}\nKeys and defaults:\n{help_text(BenchConfig)}")
        return 0
    try:
        config = parse(BenchConfig, arguments)
        lines, result = measure(config)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    if config.out:
        Path(config.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
