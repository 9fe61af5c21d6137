"""Continuations by a denoiser that knows its world, by runs of two steps, and their bounds."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.state import THERE
from data.worlds.tiny.strip import FiniteStrip
from data.worlds.tiny.world import SPLICE, generator
from models.codec.pixels import PixelCodec
from tests.trainer.probes.likelihood.conftest import strip_config
from trainer.config import CaptionUse
from trainer.diffusion.collate import Collator
from trainer.probes.likelihood.closed_form import ExactDenoiser, Places
from trainer.probes.likelihood.pairs import first_frames, first_tokens, lawful_clips
from trainer.probes.samples.config import SamplesConfig
from trainer.probes.samples.continuations import STREAM, bounds, continued, read
from trainer.probes.samples.judged import judge, summarise
from trainer.probes.samples.pictures import unpacked
from trainer.probes.samples.probe import main

pytestmark = pytest.mark.heavy


class FewStrips(FiniteStrip):
    """A strip of 100 clips."""

    lights, speeds, offsets = (0.16,), (2.6,), (0.1,)


def drawn(count: int) -> tuple[list[Any], list[Any]]:
    world = FewStrips()
    states = [world.draw(generator(world.name, 5, index)) for index in range(count)]
    return states, [world.render(state) for state in states]


def judged(states: list[Any], found: list[Any]) -> dict[str, Any]:
    world = FewStrips()
    pairs = zip(states, found, strict=True)
    return summarise([judge(s, read(world, frames), ["ball"], SPLICE) for s, frames in pairs])


def test_who_knows_the_world_goes_on_rightly_from_given_frames() -> None:
    run, world = strip_config(Path("none")), FewStrips()
    collator = Collator(run.codec, run.text)
    clips = lawful_clips(run, collator.codec, world, 1, 0)
    valid = collator.pack(clips, [CaptionUse.dropped]).valid
    given = first_tokens(clips[0], first_frames(run.codec.stride[0]))
    exact = ExactDenoiser.build(run, collator.codec, world, Places.of(valid, given))
    states, true = drawn(8)
    config = SamplesConfig(run="none", clips=8, steps=24)
    found = judged(states, continued(config, run, cast(Any, exact), true))
    assert found["parts"]["all"] == 1.0
    assert found["breaks"]["value"] == 0


def test_the_true_clip_is_the_ceiling_and_the_others_are_floors() -> None:
    states, true = drawn(24)
    assert sum(state.of("ball")[0, 0, THERE] for state in states) > 12
    found = {
        name: judged(states, clips)
        for name, clips in bounds(true, PixelCodec(strip_config(Path("none")).codec), 0).items()
    }
    assert found["true"]["breaks"]["value"] == 0
    assert found["true"]["parts"]["all"] == 1.0
    assert max(at["value"] or 0 for at in found["true"]["away"]) < 0.1
    for floor in ("static", "shuffled", "wrong"):
        assert found[floor]["breaks"]["low"] > 5
    assert found["static"]["by_kind"]["vanish"] > found["static"]["by_kind"]["appear"]


def test_a_run_and_its_twin_are_drawn_beside_the_bounds(
    strips: Path, lawless_strips: Path, tmp_path: Path, capsys
) -> None:
    words = [f"run={strips}", f"twin={lawless_strips}", "clips=8", "steps=2", "shown=1"]
    assert main([*words, f"out={tmp_path}/first"]) == 0
    found = json.loads((tmp_path / "first").read_text())
    (world,) = found["worlds"]
    assert world["kinds"] == ["ball"]
    assert set(world["sources"]) == {"true", "run", "twin", "static", "shuffled", "wrong"}
    assert world["sources"]["run"] != world["sources"]["twin"]
    shown = {name: unpacked(of[0], 9).astype(int) for name, of in world["shown"].items()}
    strip = tiny_world("strip")
    first = strip.render(strip.draw(generator("strip", 0, 0, STREAM)))
    assert np.array_equal(shown["true"], first)
    for name in ("run", "twin"):  # they go on from its frames; half precision rounds
        assert np.abs(shown[name] - first)[:SPLICE].max() <= 1
        assert np.abs(shown[name] - first)[SPLICE:].max() > 1
    assert np.abs(shown["free"] - first)[:SPLICE].max() > 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in world["sources"])
    assert main([*words, f"out={tmp_path}/again"]) == 0
    assert (tmp_path / "again").read_text() == (tmp_path / "first").read_text()
    assert main([f"run={strips}", "worlds=[uniform]"]) == 2
    assert "never saw it" in capsys.readouterr().err
