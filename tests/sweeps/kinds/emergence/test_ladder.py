"""The picture of a ladder: whose clips it shows, where, and with which numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.worlds.tiny.strip import Strip
from data.worlds.tiny.world import SPLICE, generator
from sweeps.kinds.emergence.ladder import (
    APART,
    GIVEN,
    LINE,
    MADE,
    MARGIN,
    NARROWEST,
    SCALE,
    SIDE,
    columns_of,
    note_of,
    write_ladders,
)
from sweeps.kinds.emergence.table import Asked
from trainer.probes.samples.pictures import packed, unpacked

WORLD = Strip()


def clip(number: int) -> np.ndarray:
    return WORLD.render(WORLD.draw(generator("strip", 3, number)))


def source(breaks: float) -> dict[str, Any]:
    return {"breaks": {"value": breaks}, "clips": 64, "parts": {"all": 0.125},
            "away": [{"value": 1.0}, {"value": 2.5}, {"value": None}, {"value": 4.0}]}  # fmt: skip


def world(number: int) -> dict[str, Any]:
    """Return the answer of a run, whose clips are of this number and its neighbours."""
    sources = {"run": 10.0 * number, "twin": 77.0, "true": 0.0, "static": 38.0, "wrong": 71.0}
    shown = {"run": number, "twin": 90, "true": 91, "free": 50 + number}
    return {"world": "strip", "sources": {name: source(of) for name, of in sources.items()},
            "shown": {name: [packed(clip(of))] for name, of in shown.items()}}  # fmt: skip


def asked(budget: float, params: int, loss: float, number: int, seed: int = 0) -> Asked:
    couple: Any = SimpleNamespace(budget=budget, params=params, seed=seed)
    return Asked(couple, "", {"loss": loss}, {}, None, {"worlds": [world(number)]})


def test_a_clip_inside_an_answer_is_the_clip() -> None:
    assert np.array_equal(unpacked(packed(clip(1)), 9), clip(1))
    with pytest.raises(ValueError, match="Draw the clips again"):
        unpacked("nothing", 9)


def test_numbers_below_a_column_are_means_of_its_own_run_beside_the_twin() -> None:
    columns = columns_of([(1e11, world(1)), (1.2e13, world(2))])
    assert [column.title for column in columns] == ["1e11 FLOPs", "1.2e13 FLOPs", "true clips"]
    assert columns[1].lines == ["2.5 pixels away", "20 rules broken, twin 77", "12 % all right"]
    assert columns[2].lines[1] == "0 rules broken"
    assert "stands still breaks 38, another clip 71" in note_of(world(1))


def test_the_picture_has_the_best_size_of_each_budget_and_the_truth_last(tmp_path: Path) -> None:
    runs = [asked(4e12, 1, 0.2, 2), asked(1e11, 9, 0.6, 7), asked(1e11, 1, 0.5, 8, seed=1),
            asked(1e11, 1, 0.5, 1)]  # fmt: skip
    (path,) = write_ladders(tmp_path / "samples", runs, [0])
    assert path.name == "ladder-strip.png"
    pixels = np.asarray(Image.open(path))
    bars = [tuple(row) for row in (pixels[:, MARGIN] == MADE).all(-1)[:, None]]
    top = bars.index((True,))  # the first frame of what was drawn with nothing given
    high = 8 * SCALE
    pitch = NARROWEST + APART  # one clip is narrower than its words

    def shown(column: int, frame: int, block: int) -> np.ndarray:
        y = top + frame * (high + 2) + block * (9 * (high + 2) + LINE + MARGIN)
        x = MARGIN + column * pitch + SIDE
        return pixels[y : y + high : SCALE, x : x + 32 * SCALE : SCALE]

    for column, (free, continued) in enumerate([(51, 1), (52, 2), (91, 91)]):
        for frame in (0, SPLICE, 8):
            assert np.array_equal(shown(column, frame, 0), clip(free)[frame])
            assert np.array_equal(shown(column, frame, 1), clip(continued)[frame])
    grey = (pixels[:, MARGIN] == GIVEN).all(-1).sum()
    assert grey == SPLICE * high  # frames that were given, in the lower block alone


def test_runs_that_kept_no_clip_leave_no_picture(tmp_path: Path) -> None:
    bare = asked(1e11, 1, 0.5, 1)
    assert bare.drawn
    del bare.drawn["worlds"][0]["shown"]
    assert write_ladders(tmp_path / "samples", [bare], [0]) == []
    assert not (tmp_path / "samples").exists()
