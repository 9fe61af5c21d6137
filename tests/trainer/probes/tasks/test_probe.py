"""The whole page of a run of two steps, and of a run that draws the truth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.config import RunConfig
from trainer.diffusion.collate import Collator
from trainer.generate.generate import load_model
from trainer.probes.tasks.config import TasksConfig
from trainer.probes.tasks.draws import LONG, WINDOW, Drawn, Worlds
from trainer.probes.tasks.known import LOOP, draw_known, edited, halved
from trainer.probes.tasks.page import console, page
from trainer.probes.tasks.preference import other_prompt, preferences
from trainer.probes.tasks.probe import main
from trainer.probes.tasks.rows import rows_of
from trainer.probes.tasks.subject import Subject

from ...conftest import compose_smoke
from ...tiny_runs import train_tiny, write_tiny

FRAMES = ("codec=pixels", "codec.stride=[1,2,2]", "codec.channels=12")
TASKS = "objective.tasks={text_to_video: 1, image_to_video: 1, extend_forwards: 1}"
WORLDS = ("strip", "rotor", "rotor_damped")
FEW = ["clips=2", "steps=2"]


def composed(folder: Path, *overrides: str) -> RunConfig:
    """Compose a run of two steps."""
    shape = ("model.depth=1", "horizon.steps=2", "validation.splits=[val_worlds]")
    return compose_smoke(folder / "data", *shape, *overrides)


@pytest.fixture(scope="module")
def folder(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of two steps on three worlds, frame by frame."""
    root = tmp_path_factory.mktemp("tasks")
    run = composed(root, *FRAMES, TASKS)
    write_tiny(root / "data", run.codec, WORLDS)
    return train_tiny(run, root / "run")


@pytest.mark.heavy
def test_a_page_holds_every_task_its_floors_and_a_picture(folder: Path, tmp_path, capsys) -> None:
    out = tmp_path / "page"
    assert main([f"run={folder}", f"out={out}", *FEW]) == 0
    printed = capsys.readouterr()
    found = json.loads((out / "tasks.json").read_text())
    assert found["run"]["flops"] == json.loads((folder / "result.json").read_text())["flops"]
    assert [row["task"] for row in found["tasks"]] == [
        "image to video",
        "extend forwards",
        "extend forwards by windows",
        "extend backwards",
        "backwards, with an arrow of time",
        "connect",
        "loop",
        "edit",
        "prototype to full",
        "text",
        "text",
    ]
    written = (out / "README.md").read_text()
    assert written == page(found)
    assert console(found) in printed.out
    for row in found["tasks"]:
        assert row["reached"] == all(measure["reached"] for measure in row["measures"])
        assert row["task"] in written
        for measure in row["measures"]:
            assert measure["low"] <= measure["value"] <= measure["high"]
            assert measure["clips"] == 2
    # Nothing was learned in two steps, and the mixture had no connect.
    assert not any(row["reached"] for row in found["tasks"] if row["task"] == "image to video")
    assert "connect" in printed.err
    (kept,) = (m for row in found["tasks"] for m in row["measures"] if "largest change" in str(m))
    assert kept["largest change of a kept latent"] == 0
    assert kept["value"] == 0
    with Image.open(out / "picture.png") as picture:
        assert picture.width > 24 * 64
    before = (out / "tasks.json").read_text()
    assert main([f"run={folder}", f"out={out}", *FEW]) == 0
    assert (out / "tasks.json").read_text() == before


def truth(subject: Subject) -> Drawn:
    """Return what a perfect run would draw, but for its prototypes."""
    worlds = subject.worlds

    def frames(clips: list) -> list[np.ndarray]:
        return [clip.frames for clip in clips]

    def onwards(clip) -> np.ndarray:
        period = round(2 * np.pi / clip.scene.turn)
        return clip.frames[[n % period for n in range(LONG)]]

    wanted = [edited(clip) for clip in worlds.strip]
    clips = {
        "image": frames(worlds.strip),
        "strip_text": frames(worlds.strip),
        "edit": frames(wanted),
        "regenerated": frames(wanted[::-1]),
        "rotor_text": frames(worlds.rotor),
        "free": frames(worlds.rotor[::-1]),
        "forwards": [onwards(clip) for clip in worlds.rotor],
        "backwards": frames(worlds.rotor),
        "connect": frames(worlds.rotor),
        "prototype": frames(worlds.rotor),
        "arrow": frames(worlds.damped),
        "turned": frames(worlds.damped[::-1]),
        "loop": [clip.frames[:LOOP] for clip in worlds.loops],
    }
    assert {len(each[0]) for each in clips.values()} == {LOOP, WINDOW, LONG}
    begun = [subject.asked.without_lamp(clip.frames).latent for clip in worlds.strip]
    return Drawn(clips, {"edit": begun}, [halved(clip) for clip in frames(worlds.rotor)])


@pytest.mark.heavy
def test_truth_reads_the_ceiling_of_every_measure_and_reaches_every_task(folder: Path) -> None:
    count = 10
    # Periods of up to nine frames, which a clip shows whole.
    short = draw_known("rotor", count, 0, lambda scene: scene.turn > 2 * np.pi / 9)
    worlds = Worlds.draw(count, 0)
    worlds = Worlds(worlds.strip, short, worlds.damped, worlds.loops)
    subject = Subject(TasksConfig(str(folder), clips=count), *load_model(folder), worlds)
    ones = np.ones(count)
    rows = rows_of(worlds, truth(subject), subject.asked, {"rotor": ones, "strip": ones})
    for row in rows:
        assert row.to_json()["reached"], row.task
        for measure in row.measures:
            reach = 0.15 if "fourth window" in measure.name else 1e-9
            assert measure.drawn == pytest.approx(measure.ceiling, abs=reach), measure.name
    # Noise has a middle that moves, and colours: it must reach nothing.
    rng = np.random.default_rng(0)
    noisy = truth(subject)
    for name, clips in noisy.clips.items():
        noisy.clips[name] = [
            np.clip(rng.normal(60, 60, clip.shape), 0, 255).astype(np.uint8) for clip in clips
        ]
    # But for what is given, which no clip changes.
    found = rows_of(worlds, noisy, subject.asked, {"rotor": ones / 2, "strip": ones / 2})
    assert not [row.task for row in found if row.to_json()["reached"]]
    # The floors do not reach anything: a task of which the static clip is drawn is not reached.
    frozen = truth(subject)
    frozen.clips["image"] = [np.repeat(clip.frames[:1], WINDOW, 0) for clip in worlds.strip]
    frozen.clips["loop"] = [np.repeat(clip.frames[:1], LOOP, 0) for clip in worlds.loops]
    frozen.clips["edit"] = [clip.frames for clip in worlds.strip]
    found = rows_of(worlds, frozen, subject.asked, {"rotor": ones / 2, "strip": ones / 2})
    lost = {row.task for row in found if not row.to_json()["reached"]}
    assert lost == {"image to video", "loop", "edit", "text"}


def test_a_caption_is_preferred_where_the_loss_under_it_is_lower(folder: Path) -> None:
    run, _ = load_model(folder)
    clips = draw_known("rotor", 3, 0)
    assert other_prompt(clips, 2) == clips[0].prompt
    with pytest.raises(ValueError, match="all have one caption"):
        other_prompt([clips[0], clips[0]], 0)

    class Reader(torch.nn.Module):
        """Predicts the velocity, wrongly under every caption but one."""

        def forward(self, pack, x, t):
            states = torch.split(pack.caption, pack.caption_lengths)
            texts = [tuple(state.sum(0).tolist()) for state in states]
            wrong = torch.tensor([float(text not in own) for text in texts])
            velocity = (pack.latent - x) / (1 - t[pack.segment].unsqueeze(-1))
            return velocity + wrong[pack.segment].unsqueeze(-1)

    own = {tuple(Collator(run.codec, run.text).caption(clips[0].prompt).sum(0).tolist())}
    # The first clip's own caption is right, all others are wrong: clips whose other caption is the
    # first one's prefer that, and equal losses are no preference.
    others = [other_prompt(clips, n) == clips[0].prompt for n in range(3)]
    expected = [1.0, *(0.0 if first else 0.5 for first in others[1:])]
    assert preferences(run, Reader(), clips, 0).tolist() == expected


def test_a_run_of_latents_of_several_frames_is_refused(group: None, tmp_path, capsys) -> None:
    run = composed(tmp_path, "codec=pixels", "model.width=48")
    write_tiny(tmp_path / "data", run.codec)
    train_tiny(run, tmp_path / "run")
    assert main([f"run={tmp_path / 'run'}"]) == 2
    assert "codec.stride=[2, 2, 2]: tasks are measured frame by frame" in capsys.readouterr().err
    assert not (tmp_path / "run" / "tasks").exists()
    assert main(["clips=3"]) == 2
    assert "run=: must be given" in capsys.readouterr().err
