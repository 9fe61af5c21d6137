"""From the files that runs, scores and probes left behind to one long table of values."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.kinds.arms.plan import Drawn
from sweeps.kinds.arms.table import Measure, Value
from sweeps.study.spec import Spec

ALL = "all"
OWN = "loss, own captions"


def result_values(spec: Spec, seed: int, result: dict[str, Any]) -> list[Value]:
    """Return a run's own validation, with the captions that its arm asks for."""
    measure = Measure(OWN, ALL, "loss", "lower")
    return [Value(measure, spec.arm, seed, "", float(result["loss"]))]


def score_values(spec: Spec, seed: int, path: Path) -> list[Value]:
    """Return the losses by clip that ``trainer.probes.score`` wrote, for all worlds and each."""
    found = []
    for use, measured in json.loads(path.read_text())["captions"].items():
        clips = measured["clips"]
        worlds = sorted({clip["world"] for clip in clips})
        for clip in clips:
            groups = [ALL, clip["world"]] if len(worlds) > 1 else [ALL]
            for group in groups:
                measure = Measure(f"loss given {use} captions", group, "loss", "lower")
                found.append(Value(measure, spec.arm, seed, clip["clip"], clip["loss"]))
    return found


def probe_values(drawn: Sequence[Drawn], folder: Path, probe: dict[str, Any]) -> list[Value]:
    """Return what a probe measured on drawn clips; held-out clips have no arm and are left out."""
    by_file = {str(folder / clip.file): clip for clip in drawn}
    kinds = sorted({clip.captions for clip in drawn if clip.arm})
    better = dict.fromkeys(probe["measures"], "higher")
    found = []
    for entry in probe["clips"]:
        clip = by_file.get(entry["file"])
        if clip is None or not clip.arm:
            continue
        for name, value in entry["values"].items():
            label = f"{name}, {clip.captions} prompts" if len(kinds) > 1 else name
            for group in dict.fromkeys((ALL, entry.get("group") or ALL)):
                measure = Measure(label, group, "share", better.get(name, "higher"))
                key = f"{clip.prompt:02d}-{clip.noise}"
                found.append(Value(measure, clip.arm, clip.seed, key, float(value)))
    return found


def held_out_means(
    drawn: Sequence[Drawn], folder: Path, probe: dict[str, Any]
) -> dict[tuple[str, str], float]:
    """Return the mean of each measure on the held-out clips themselves, by (name, group)."""
    files = {str(folder / clip.file) for clip in drawn if not clip.arm}
    sums: dict[tuple[str, str], list[float]] = {}
    for entry in probe["clips"]:
        if entry["file"] in files:
            for name, value in entry["values"].items():
                for group in dict.fromkeys((ALL, entry.get("group") or ALL)):
                    sums.setdefault((name, group), []).append(float(value))
    return {key: math.fsum(found) / len(found) for key, found in sums.items()}
