"""What the tests of faults train, and how a run that suffered compares with one that did not."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from models.architecture import specification_of
from trainer.checkpoint.write import Loaded, load_latest, verify
from trainer.config import compose_run, load_run
from trainer.identity import freeze
from trainer.run.metrics import MEASURED, read_metrics

from ..conftest import read_json

STEPS = 7  # a little more than an epoch of two packs a step
KINDS = ("param", "exp_avg", "exp_avg_sq", "ema")
Sample = tuple[str, int]


def words(latents: Path, *overrides: str) -> list[str]:
    """Return the command line of a run of a few short steps that saves every second one."""
    fixed = ["experiment=cpu_smoke", f"data.root={latents}", "log.wandb=disabled"]
    fixed += [f"horizon.steps={STEPS}", "data.pack_tokens=384", "data.pool=8"]
    fixed += ["checkpoint.seconds=0", "checkpoint.steps=2", "log.samples=true"]
    # A narrow average forgets within these few steps what a resume could have got wrong.
    fixed += ["optim.ema_sigma=0.2"]
    fixed += ["validation.samples=2", "validation.times=1", "validation.curve_points=0"]
    return [*fixed, *overrides]


def two_ranks(zero_stage: int = 1) -> list[str]:
    """Return the overrides of a run on two ranks."""
    return ["parallel.processes=2", f"parallel.zero_stage={zero_stage}"]


def prepare(latents: Path, folder: Path, *overrides: str) -> Path:
    """Freeze a run, or the new layout of one, in its folder."""
    freeze(compose_run(words(latents, *overrides)), folder)
    return folder


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints of a run."""
    return sorted(int(p.name.split("-")[1]) for p in (folder / "checkpoints").glob("step-*"))


def final(folder: Path) -> Loaded:
    """Return the newest good checkpoint of a run."""
    loaded = load_latest(folder / "checkpoints")
    assert loaded is not None
    return loaded


def saved_at(folder: Path, step: int) -> Loaded:
    """Return the verified checkpoint of a step."""
    return verify(folder / "checkpoints" / f"step-{step:08d}")


def tensors(loaded: Loaded) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint of a run, by kind and name."""
    facts = specification_of(load_run(loaded.folder.parents[1]).model)
    found = {kind: loaded.tensors(kind, facts.shapes, facts.cuts) for kind in KINDS}
    return {f"{kind} {name}": found[kind][name] for kind in KINDS for name in facts.shapes}


def differing(a: Loaded, b: Loaded, kinds: tuple[str, ...] = KINDS) -> list[str]:
    """Return the tensors of two checkpoints that differ in any bit."""
    first, second = tensors(a), tensors(b)
    names = [name for name in first if name.split()[0] in kinds]
    return [name for name in names if not torch.equal(first[name], second[name])]


def update_error(folder: Path, twin: Path) -> float:
    """Return the difference of two runs' final weights relative to their size."""
    found, expected = tensors(final(folder)), tensors(final(twin))
    names = [name for name in expected if name.startswith("param")]
    difference = sum(float((found[n] - expected[n]).square().sum()) for n in names)
    return (difference / sum(float(expected[n].square().sum()) for n in names)) ** 0.5


def records(folder: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without what a clock measured."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in MEASURED} for record in found]


def logged_steps(folder: Path) -> list[int]:
    """Return the steps of the lines of training, in order."""
    return [r["step"] for r in records(folder) if "lr" in r]


def events(folder: Path) -> list[dict[str, Any]]:
    """Return events.jsonl."""
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sample_lines(folder: Path) -> list[tuple[int, int, str, list[Sample]]]:
    """Return (attempt, step, file, samples) of all lines of the samples' logs."""
    lines = []
    for path in sorted((folder / "samples").glob("rank-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # a full disk cut it short
                continue
            seen = [(key, visit) for key, visit in record["samples"]]
            lines.append((record["attempt"], record["step"], path.name, seen))
    return lines


def samples_by_step(folder: Path) -> dict[int, list[Sample]]:
    """Return what each step was trained on, by the last attempt at it."""
    steps: dict[int, dict[int, dict[str, list[Sample]]]] = defaultdict(lambda: defaultdict(dict))
    for attempt, step, name, seen in sample_lines(folder):
        steps[step][attempt][name] = seen  # the last line of a file counts
    return {
        step: sorted(s for seen in attempts[max(attempts)].values() for s in seen)
        for step, attempts in steps.items()
    }


def repeated_steps(folder: Path) -> int:
    """Return how many steps were done more than once, each time counted."""
    done = {(attempt, step) for attempt, step, _, _ in sample_lines(folder)}
    return len(done) - len({step for _, step in done})


def lost_samples(folder: Path, twin: Path) -> int:
    """Return how many samples of the twin's steps the run did not train on at that step."""
    found, expected = samples_by_step(folder), samples_by_step(twin)
    return sum(len(set(expected[step]) - set(found.get(step, []))) for step in expected)


def assert_exactly_once(folder: Path, epochs: int = 1) -> None:
    """Assert that each sample of the first epochs was seen once each, and none twice later."""
    seen = [s for samples in samples_by_step(folder).values() for s in samples]
    assert len(set(seen)) == len(seen)
    keys = [f"train-{i:05d}" for i in range(60)]
    for visit in range(epochs):
        assert sorted(key for key, v in seen if v == visit) == keys


def assert_twins(folder: Path, twin: Path) -> None:
    """Assert that two runs on one layout ended with the same bits and wrote the same record."""
    assert differing(final(folder), final(twin)) == []
    assert records(folder) == records(twin)
    assert final(folder).state["loader"] == final(twin).state["loader"]
    assert samples_by_step(folder) == samples_by_step(twin)
    first, second = read_json(folder / "result.json"), read_json(twin / "result.json")
    for key in ("status", "loss", "loss_real", "steps", "updates", "tokens", "flops", "samples"):
        assert first[key] == second[key], key
