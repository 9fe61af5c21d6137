"""A run's loss measured again: the run's own number, clip by clip, and given other captions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.dataset.sample import world_of
from data.dataset.shards import read_index
from data.loading.loader import load_fixed
from models.dit.model import DiT
from trainer.config import CaptionUse, load_run
from trainer.diffusion.collate import Collator
from trainer.diffusion.evaluate import Validator
from trainer.parallel.mesh import alone
from trainer.probes.score import main

from ..conftest import read_json


def test_the_score_is_the_runs_own_validation_and_lists_every_clip(
    trained: Path, latents: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "loss.json"
    assert main([f"run={trained}", f"out={out}", "samples=6", "captions=[dense,dropped]"]) == 0
    found = json.loads(out.read_text())["captions"]
    own = read_json(trained / "result.json")["validation"]["val_worlds"]
    # The run validated the weights it held, the score those of its checkpoint: the same numbers.
    assert found["dense"]["loss"] == pytest.approx(own["loss"], rel=1e-6)
    clips = found["dense"]["clips"]
    infos = [s.info for s in load_fixed(load_run(trained).data, "val_worlds", 6)]
    assert [clip["clip"] for clip in clips] == [info.key for info in infos]
    assert {clip["world"] for clip in clips} == {"blobs"}
    low, high = min(c["loss"] for c in clips), max(c["loss"] for c in clips)
    assert low < found["dense"]["loss"] < high


def test_captions_of_another_kind_give_another_loss(latents: Path, trained: Path) -> None:
    run = load_run(trained)
    collator = Collator(run.codec, run.text)
    model = DiT(run.model).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.1, generator=generator)

    def loss(use: CaptionUse) -> float:
        given = replace(run, validation=replace(run.validation, captions=use))
        return Validator(given, "val_worlds", collator, alone(), 6).measure(model).loss

    assert loss(CaptionUse.dense) != loss(CaptionUse.dropped)
    # These clips have no short caption: the dense one stands in.
    assert loss(CaptionUse.short) == loss(CaptionUse.dense)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out=x.json"], "run=: must be given"),
        (["run={run}", "out=x.json", "captions=[short]"], "holds none. Use [dense]"),
        (["run={run}", "out=x.json", "captions=[long]"], "captions"),
        (["run={run}", "out=x.json", "captions=[]"], "captions=[]: must hold at least 1 value"),
        (["run={run}", "out=x.json", "split=none"], "is missing"),
        (["run=none", "out=x.json"], "has no config.yaml"),
    ],
)
def test_what_cannot_be_measured_is_refused(trained, arguments, message, capsys) -> None:
    assert main([argument.format(run=trained) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_world_is_the_first_part_of_a_source(latents: Path) -> None:
    assert world_of("rooms/seed-7") == "rooms"
    assert {world_of(info.source) for info in read_index(latents, "train")} == {"blobs"}
