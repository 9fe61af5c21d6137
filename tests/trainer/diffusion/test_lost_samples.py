"""A run goes on where a sample was all that its pack, or its step, had to train on."""

import json
import shutil
from pathlib import Path

import pytest

from trainer.diffusion.attempt import train_run
from trainer.run.metrics import read_metrics

from ..conftest import compose_smoke, damage, read_json

pytestmark = [
    pytest.mark.usefixtures("group"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]


@pytest.mark.heavy
@pytest.mark.parametrize("packs", [1, 2])
def test_a_damaged_clip_alone_in_its_pack_is_named_and_the_run_goes_on(
    latents: Path, tmp_path: Path, packs: int
) -> None:
    root = shutil.copytree(latents, tmp_path / "damaged")
    keys = damage(root, range(0, 60, 7))
    run = compose_smoke(
        root,
        "data.on_bad_sample=drop",
        "data.max_segments=1",
        f"data.packs_per_step={packs}",
        "horizon.steps=10",
        "log.samples=true",
        "validation.curve_points=0",
    )
    assert train_run(run, tmp_path, lambda: False)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    events = {event["step"]: event for event in map(json.loads, lines)}
    assert events
    seen = (tmp_path / "samples/rank-00000.jsonl").read_text().splitlines()
    samples = [record["samples"] for record in map(json.loads, seen)]
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "lr" in row]
    assert len(rows) == len(samples) == 10
    for step, (row, trained) in enumerate(zip(rows, samples, strict=True)):
        lost = events[step]["keys"] if step in events else []
        assert set(lost) <= set(keys)
        assert not {key for key, _ in trained} & set(keys)
        assert len(trained) + len(lost) == packs
        # A step that lost all moves no weight, and has neither loss nor gradient to tell.
        assert ("train_loss" in row) == ("grad_norm" in row) == bool(trained)
    assert packs - 1 in {len(trained) for trained in samples}
    assert read_json(tmp_path / "result.json")["loss"] < 10
