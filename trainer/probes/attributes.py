"""Measure which attributes of a prompt a drawn clip shows, by a classifier trained on real clips.

usage: kinescale attributes run=RUN clips=FILE.json root=DATASET out=FILE.json [key=value]

The truth of a clip names its attributes (floor, wall, sky, light, camera ...). A phrase that names
colours counts by its first one, a list by its first item. A small network learns them from
coarse pictures of training clips, each world's attributes apart; its accuracy on held-out clips
stands beside the result. An attribute that it cannot tell there clearly better than by guessing is
not used. Right means: on the drawn clip it sees what the prompt's truth says.
keys: split=val_worlds train_split=train train_clips=2000 check_clips=400
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from data.shell import command
from data.worlds.palette import COLOURS
from trainer.probes.common import ClipSource, Frames, ProbeConfig, read_clip, run_probe, truths_of

Labels = dict[str, str]
GRID, PICTURES = 8, 3  # a clip is seen as so many pictures of GRID x GRID colours
LEAST_CLIPS = 20  # of a value, to be learned
MOST_VALUES = 16
LEAST_PROMPTS = 8  # that state an attribute, to be shown one by one
CLEARLY = 0.1  # an attribute is used where accuracy beats guessing by this on held-out clips
_STEPS, _WIDTH = 400, 192


def labels_of(truth: dict[str, Any]) -> Labels:
    """Return a clip's attributes as "world attribute" -> value, and which world it is of."""
    found = {"world": str(truth["world"])}
    for name, value in truth["attributes"].items():
        phrase = value if isinstance(value, str) else (value[0] if value else "")
        if phrase:
            found[f"{truth['world']} {name}"] = _value(phrase)
    return found


def _value(phrase: str) -> str:
    colours = [word for word in phrase.lower().replace(",", " ").split() if word in COLOURS]
    return colours[0] if colours else phrase.lower()


def describe(frames: Frames) -> Float[Tensor, " D"]:
    """Return a clip's coarse pictures, first to last, and how they change."""
    picks = np.linspace(0, len(frames) - 1, PICTURES).round().astype(int)
    pixels = torch.from_numpy(frames[picks].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    grid = adaptive_avg_pool2d(pixels, GRID)  # (PICTURES, 3, GRID, GRID)
    shape = torch.tensor([np.log(frames.shape[2] / frames.shape[1])], dtype=torch.float32)
    return torch.cat([grid.flatten(), 4 * (grid[1:] - grid[:-1]).flatten(), shape])


@dataclass(frozen=True)
class Classifier:
    """A network with a head for each attribute; ``values`` lists what a head can say."""

    network: nn.Sequential
    mean: Tensor
    deviation: Tensor
    values: dict[str, list[str]]

    @torch.no_grad()
    def name(self, clips: Float[Tensor, "N D"]) -> list[Labels]:
        """Name every attribute of clips, also those that their world has not."""
        scores = self.network((clips - self.mean) / self.deviation)
        parts = torch.split(scores, [len(v) for v in self.values.values()], -1)
        chosen = zip(self.values, parts, strict=True)
        best = {name: part.argmax(-1).tolist() for name, part in chosen}
        return [
            {name: self.values[name][rows[i]] for name, rows in best.items()}
            for i in range(len(clips))
        ]


def learnable(labels: Sequence[Labels]) -> dict[str, list[str]]:
    """Return the values of each attribute that enough clips show, where there is a choice."""
    found = {}
    for name in sorted({name for clip in labels for name in clip}):
        counts = Counter(clip[name] for clip in labels if name in clip)
        values = [value for value, count in counts.most_common(MOST_VALUES) if count >= LEAST_CLIPS]
        if len(values) > 1:
            found[name] = sorted(values)
    return found


def train_classifier(clips: Float[Tensor, "N D"], labels: Sequence[Labels]) -> Classifier:
    """Train on coarse pictures and labels; the same input gives the same network."""
    values = learnable(labels)
    if not values:
        raise ValueError(
            f"train_clips={len(labels)}: no attribute has two values that {LEAST_CLIPS} clips "
            "show. Use more clips."
        )
    targets = torch.full((len(labels), len(values)), -1)
    for row, clip in enumerate(labels):
        for column, (name, known) in enumerate(values.items()):
            if clip.get(name) in known:
                targets[row, column] = known.index(clip[name])
    mean, deviation = clips.mean(0), clips.std(0) + 0.05
    inputs = (clips - mean) / deviation
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], _WIDTH),
        nn.GELU(),
        nn.Linear(_WIDTH, sum(len(known) for known in values.values())),
    )
    for parameter in network.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.0
        with torch.no_grad():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.3)
    sizes = [len(known) for known in values.values()]
    for step in range(_STEPS):
        # Noise on the inputs stands in for the blur and the errors of drawn clips.
        noisy = inputs + 0.5 * torch.randn(inputs.shape, generator=generator)
        scores = torch.split(network(noisy), sizes, -1)
        losses = [
            cross_entropy(part, targets[:, column], ignore_index=-1)
            for column, part in enumerate(scores)
        ]
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / _STEPS)
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    return Classifier(network.requires_grad_(False), mean, deviation, values)


def check(
    classifier: Classifier, clips: Float[Tensor, "N D"], labels: Sequence[Labels],
    trained: Sequence[Labels],
) -> list[dict[str, Any]]:  # fmt: skip
    """Return each attribute's accuracy on held-out clips, beside the most frequent value's."""
    named = classifier.name(clips)
    rows = []
    for name, known in classifier.values.items():
        both = zip(named, labels, strict=True)
        pairs = [(n[name], t[name]) for n, t in both if t.get(name) in known]
        if not pairs:
            continue
        usual = Counter(t[name] for t in trained if name in t).most_common(1)[0][0]
        accuracy = float(np.mean([a == b for a, b in pairs]))
        guess = float(np.mean([usual == b for _, b in pairs]))
        used = accuracy >= guess + CLEARLY
        rows.append(
            {
                "measure": name,
                "what": f"share right of {len(known)} values"
                + ("" if used else ": not used, hardly better than guessing"),
                "value": accuracy,
                "baseline": guess,
                "clips": len(pairs),
                "used": used,
            }
        )
    return rows


def measure(config: ProbeConfig, source: ClipSource, clips: list[dict[str, str]]) -> dict[str, Any]:
    """Learn, check, and measure the drawn clips."""

    def read(root: str, split: str, count: int) -> tuple[Tensor, list[Labels]]:
        known = [
            (describe(source.through_codec(frames)), labels_of(truth))
            for _, frames, truth in source.read(root, split, count)
        ]
        return torch.stack([clip for clip, _ in known]), [labels for _, labels in known]

    root = config.train_root or config.root
    trained, trained_labels = read(root, config.train_split, config.train_clips)
    classifier = train_classifier(trained, trained_labels)
    held_out, held_out_labels = read(config.root, config.split, config.check_clips)
    quality = check(classifier, held_out, held_out_labels, trained_labels)
    used = [row["measure"] for row in quality if row["used"]]
    truths = truths_of(config.root, config.split, {clip["key"] for clip in clips})
    drawn = torch.stack([describe(read_clip(clip["file"])) for clip in clips])
    found: list[dict[str, Any]] = []
    prompts: dict[str, set[str]] = {}
    for clip, named in zip(clips, classifier.name(drawn), strict=True):
        wanted = labels_of(truths[clip["key"]])
        right = {
            name: float(named[name] == wanted[name])
            for name in used
            if wanted.get(name) in classifier.values[name]
        }
        # Worlds are put together where they share an attribute: each has few prompts.
        values = {name.split(" ", 1)[-1] + " right": value for name, value in right.items()}
        for name in values:
            prompts.setdefault(name, set()).add(clip["key"])
        if values:
            values["attributes right"] = float(np.mean(list(values.values())))
        found.append({"file": clip["file"], "values": values})
    rare = {name for name, keys in prompts.items() if len(keys) < LEAST_PROMPTS}
    for entry in found:
        entry["values"] = {k: v for k, v in entry["values"].items() if k not in rare}
    notes = [
        f"{len(used)} of {len(quality)} attributes can be told from coarse pictures of held-out "
        "clips; the others are not used. Right means that the classifier sees on the drawn clip "
        "what the truth of the prompt's own clip says, also where a short prompt did not say it."
    ]
    if rare:
        notes.append(
            f"Not shown one by one, for they are in fewer than {LEAST_PROMPTS} prompts: "
            f"{', '.join(sorted(rare))}."
        )
    # The mean over attributes last: it answers the study's question.
    measures = [*sorted(set(prompts) - rare), "attributes right"]
    return {"measures": measures, "quality": quality, "clips": found, "notes": notes}


@command(__doc__, doing="measuring the drawn clips")
def main(argv: list[str]) -> int:
    """Run the command line; return the exit status."""
    return run_probe(argv, measure)


if __name__ == "__main__":
    main.run()
