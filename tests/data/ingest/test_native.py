"""Films keep their own size and length up to a stated budget, and what is not kept is told."""

import numpy as np
import pytest

from data.config import DemoConfig, IngestConfig, WorldsConfig
from data.dataset.shards import read_index, read_manifest
from data.ingest import ingest
from data.media.film import ClipPlanner, with_own_length
from data.media.probe import Facts, fit_size
from tests.data.conftest import encode, paint

MANY = ["num_workers=1", "shots=none", "duplicate_bits=-1", "repeat_bits=-1"]


def facts(height: int, width: int) -> Facts:
    """Return what is known of a plain film."""
    return Facts(height, width, height, width, 0, 24.0, 1000, True, 1000, "h264")


def ingested(tmp_path, num_frames: int, height: int, width: int, *more: str):
    (tmp_path / "in").mkdir()
    film = np.ascontiguousarray(paint(num_frames, height, width))
    (tmp_path / "in" / "a.mp4").write_bytes(encode(film))
    out = tmp_path / "out"
    assert ingest.main([f"input={tmp_path / 'in'}", f"output={out}", *MANY, *more]) == 0
    return read_index(out, "train"), read_manifest(out)


def test_a_film_keeps_its_own_size_and_length(tmp_path, capsys):
    """At 512 tokens it would be cut into clips of 17 frames and 240x150 pixels."""
    infos, manifest = ingested(tmp_path, 60, 200, 320)
    assert [(i.num_frames, i.height, i.width) for i in infos] == [(57, 200, 320)]
    assert infos[0].original["scale"] == 1
    assert manifest["pixels"] == {
        "read": 60 * 200 * 320, "in_clips": 57 * 200 * 320, "kept": 57 * 200 * 320,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "pixels kept: 95.0% of those read (5.0% are in frames that no clip" in shown
    assert f"largest clip: {15 * 13 * 20:,} tokens" in shown


def test_what_scaling_loses_is_told_apart_from_what_cutting_loses(tmp_path, capsys):
    infos, manifest = ingested(tmp_path, 20, 200, 320, "token_cap=500")
    (info,) = infos
    assert (info.num_frames, info.height < 200) == (17, True)
    pixels = manifest["pixels"]
    assert (pixels["read"], pixels["in_clips"]) == (20 * 200 * 320, 17 * 200 * 320)
    assert pixels["kept"] == 17 * info.height * info.width
    share = pixels["kept"] / pixels["read"]
    assert f"pixels kept: {share:.1%} of those read (15.0% are in frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("height", "width", "num_frames", "is_whole"),
    [
        (1080, 1920, 29, True),  # 8 of 8,160 tokens are 65,280
        (720, 1280, 69, True),
        (2160, 3840, 17, False),
        (32, 32, 1025, True),  # a clip of 65,536 frames would fill the memory
    ],
)
def test_a_clip_is_as_long_as_the_budget_holds_at_its_own_size(
    height: int, width: int, num_frames: int, is_whole: bool
):
    config = with_own_length(IngestConfig(), facts(height, width))
    assert config.max_frames == num_frames
    size = fit_size(num_frames, height, width, config)
    assert (size == (height, width)) is is_whole
    stated = with_own_length(IngestConfig(clip_frames=[9]), facts(height, width))
    assert stated.clip_frames == [9]
    assert stated.max_frames == 0


def test_no_clip_of_a_long_film_is_left_out_unless_asked():
    config = IngestConfig(max_frames=17)
    assert len(ClipPlanner(config, 17_000, 0).advance(17_000, shot_ends=True)) == 1000
    assert len(ClipPlanner(config, 17_000, 64).advance(17_000, shot_ends=True)) == 64


@pytest.mark.parametrize("maker", [DemoConfig, WorldsConfig])
def test_the_demo_and_worlds_set_caps_of_their_own(maker: type):
    settings = maker().ingest
    assert (settings.token_cap, settings.max_frames, settings.max_clips_per_source) == (512, 17, 64)
