"""The ladder says how good its samples are: a number, its ceiling, its floor."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from data.worlds.palette import COLOURS
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import render_page
from sweeps.report.pages.ladder import Head, Prompt, build_ladder
from sweeps.report.tables.prompt_colours import (
    NAMES,
    colour_shares,
    colours_named,
    mean_of,
    score,
)
from sweeps.report.video import write_mp4

COMMITTED = Path(__file__).parents[3] / "docs" / "studies"


def flat(*colours: str, size: int = 32) -> np.ndarray:
    """A clip of stripes, as wide as each other."""
    values = [np.array(COLOURS[name]) * 255 for name in colours]
    width = size // len(values)
    rows = np.concatenate([np.broadcast_to(v, (4, size, width, 3)) for v in values], axis=2)
    return rows.round().astype(np.uint8)


def test_a_prompt_names_colours_as_words():
    assert colours_named("A RED ball, grey-green walls; a bored orangery") == {
        "red", "grey", "green",
    }  # fmt: skip
    assert colours_named("waves at a beach") == frozenset()
    assert math.isnan(score(colour_shares(flat("red")), frozenset()))


@pytest.mark.parametrize("name", NAMES)
def test_every_colour_of_the_palette_is_seen_as_itself_in_shade_too(name):
    assert colour_shares(flat(name))[NAMES.index(name)] == 1
    if name not in ("white", "grey", "black", "orange", "yellow"):  # in shade those are others
        shaded = (flat(name) * 0.8).astype(np.uint8)
        assert colour_shares(shaded)[NAMES.index(name)] == 1


def test_the_score_is_the_harmonic_mean_of_pixels_and_colours():
    shares = colour_shares(flat("red", "red", "blue", "green"))
    assert score(shares, frozenset({"red", "blue"})) == pytest.approx(2 * 0.75 / 1.75)
    assert score(shares, frozenset({"red", "pink"})) == pytest.approx(0.5)
    assert score(shares, frozenset({"pink"})) == 0
    # A clip of noise shows every colour and gets nothing for it but its share of pixels.
    every = colour_shares(flat(*NAMES, size=240))
    assert score(every, frozenset({"red", "blue"})) == pytest.approx(2 * (1 / 6) / (7 / 6))


def test_an_interval_is_student_s_and_one_prompt_has_none():
    found = mean_of([0.2, 0.4, math.nan, 0.9])
    low, high = stats.t.interval(0.9, 2, 0.5, np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, low, high))
    assert mean_of([0.3]).value == 0.3
    assert math.isnan(mean_of([0.3]).low)


PROMPTS = [("red", "blue"), ("green", "pink"), ("yellow", "purple")]


@pytest.fixture
def folder(tmp_path):
    for number, colours in enumerate(PROMPTS):
        write_mp4(tmp_path / f"samples/ref-{number}.mp4", flat(*colours))
        write_mp4(tmp_path / f"samples/grey-{number}.mp4", flat("grey"))
        write_mp4(tmp_path / f"samples/good-{number}.mp4", flat(*colours, colours[0]))
    return tmp_path


def ladder_of(folder: Path, *columns: str):
    prompts = [
        Prompt(f"a {a} ball on a {b} floor", "", [f"samples/{c}-{n}.mp4" for c in columns],
               f"samples/ref-{n}.mp4")
        for n, (a, b) in enumerate(PROMPTS)
    ]  # fmt: skip
    notes: list[str] = []
    return build_ladder(folder, notes, [Head(column) for column in columns], prompts), notes


def test_columns_stand_between_the_floor_and_the_ceiling(folder):
    ladder, notes = ladder_of(folder, "grey", "good")
    assert notes == []
    assert ladder.ceiling == "1.00 [1.00, 1.00]"
    assert ladder.floor == "0.00 [0.00, 0.00]"
    assert ladder.means == ["0.00 [0.00, 0.00]", "1.00 [1.00, 1.00]"]
    assert ladder.gains[1] == ladder.ceiling_gain == "+1.00 [+1.00, +1.00]"
    said = "By their colours, clips of grey cannot be told from clips of other prompts."
    assert ladder.verdict == said
    assert [row.videos[1].score for row in ladder.rows] == ["colours 1.00"] * 3
    assert ladder_of(folder, "good")[0].verdict.startswith("Clips of every column show")


def test_a_clip_that_is_missing_or_none_has_no_number(folder):
    (folder / "samples/good-1.mp4").unlink()
    (folder / "samples/good-2.mp4").write_bytes(b"no video")
    ladder, notes = ladder_of(folder, "good")
    assert [row.videos[0].score for row in ladder.rows] == ["colours 1.00", "", ""]
    assert ladder.means == ["1.00"]
    assert ladder.gains == [""]
    assert notes == ["The video 'samples/good-1.mp4' is missing or outside the study's folder."]


@pytest.mark.heavy
def test_the_committed_ladder_says_that_no_prompt_is_recognisable(tmp_path):
    study = tmp_path / "study"
    shutil.copytree(COMMITTED / "cpu_isoflop", study)
    page = render_page(read_inputs(study), {})
    assert "clips of any column cannot be told from clips of other prompts" in page
    foot = page[page.index("<tfoot>") : page.index("</tfoot>")]
    assert '<td class="score">0.83 [0.81, 0.85]</td>' in foot  # the codec's own clips
    assert "clips of other prompts: 0.54 [0.37, 0.72]" in foot
