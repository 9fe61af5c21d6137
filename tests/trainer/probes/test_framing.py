"""The framing probe on rendered clips whose truth is known, whole, cut and gone."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.dataset.shards import ShardWriter, read_index, write_manifest
from data.media.h264 import encode_h264
from data.worlds.clip import Clip
from data.worlds.framing import film_framing
from trainer.config import RunConfig
from trainer.identity import freeze
from trainer.probes.common import ClipSource, ProbeConfig, read_clip
from trainer.probes.framing import (
    Palette,
    check_palette,
    learn_palette,
    look,
    main,
    share_in_frame,
    subject_of,
    summarise_clip,
)

from ..conftest import compose_smoke

SIZES = ((48, 96), (96, 48), (48, 112), (112, 48))


def write_subjects(root: Path, counts: dict[str, int]) -> Path:
    """Write clips of one subject each, with truth; splits have other seeds."""
    for number, (split, count) in enumerate(counts.items()):
        with ShardWriter(root, split, 8_000_000) as writer:
            for i in range(count):
                clip = film_framing(1000 * number + i, 5, *SIZES[i % 4])
                writer.write(meta_of(clip), encode_h264(clip.frames, clip.fps), "mp4", clip.truth)
    write_manifest(root, {"name": "subjects"})
    return root


def meta_of(clip: Clip) -> dict:
    frames, height, width, _ = clip.frames.shape
    return {
        "key": clip.key, "media": "video", "num_frames": frames, "height": height, "width": width,
        "fps": clip.fps, "duration_seconds": frames / clip.fps, "caption": clip.caption,
        "short_caption": clip.short_caption, "source": clip.source, "licence": "CC0",
        "rendered": True, "original": {},
    }  # fmt: skip


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_subjects(tmp_path_factory.mktemp("subjects"), {"train": 100, "val_worlds": 32})


@pytest.fixture(scope="module")
def run(subjects: Path) -> RunConfig:
    return compose_smoke(subjects)


@pytest.fixture(scope="module")
def source(run: RunConfig) -> ClipSource:
    return ClipSource(run)


@pytest.fixture(scope="module")
def palette(source: ClipSource, subjects: Path) -> Palette:
    return learn_palette(source.known(str(subjects), "train", 0))


@pytest.mark.heavy
def test_the_probe_is_right_on_held_out_clips_and_their_crops(
    source: ClipSource, palette: Palette, subjects: Path
) -> None:
    config = ProbeConfig(root=str(subjects), check_clips=0)
    rows = {(r["measure"], r["what"]): r for r in check_palette(source, palette, config)}
    share = "subject inside the frame"
    native = rows[share, "native clips: mean absolute error"]
    crops = rows[share, "square crops: mean absolute error"]
    assert native["value"] < 0.03
    assert crops["value"] < 0.12
    assert crops["value"] < crops["baseline"] / 2
    assert abs(rows[share, "square crops: bias"]["value"]) < 0.06
    assert rows["right colour", "native clips: share right"]["value"] > 0.95
    whole = rows["subject drawn", "native clips, more than half shown: share found"]
    assert whole["value"] == 1.0
    # The clips do hold what a crop loses: else the errors above would say nothing.
    assert crops["baseline"] > 0.1


@pytest.mark.heavy
def test_an_empty_scene_and_a_subject_of_another_colour_are_noticed(
    source: ClipSource, palette: Palette
) -> None:
    clip = film_framing(5, 5, 48, 96)
    colour = subject_of(clip.truth)["colour"]
    seen = look(source.through_codec(clip.frames), palette)
    assert summarise_clip(seen, colour)["right colour"] == 1.0
    other = next(name for name in palette.subjects if name != colour)
    assert summarise_clip(seen, other)["right colour"] == 0.0
    empty = np.repeat(clip.frames[:, :, :1], 96, 2)  # its first column holds floor and sky alone
    assert set(summarise_clip(look(empty, palette), colour).values()) == {0.0}


@pytest.mark.parametrize(
    ("rows", "columns", "share"),
    [
        ((10, 30), (40, 60), 1.0),  # inside
        ((10, 30), (0, 10), 0.5),  # half is beyond the left edge
        ((10, 30), (92, 96), 0.2),
        ((43, 48), (40, 60), 0.25),
        ((0, 10), (0, 20), 0.5),  # the corner: as wide as it is, twice as high as is seen
        ((10, 30), (40, 96), 1.0),  # reaches the edge, but is wider than high already
    ],
)
def test_the_share_follows_from_the_extent_of_a_blob(rows, columns, share) -> None:
    assert share_in_frame(slice(*rows), slice(*columns), 48, 96) == pytest.approx(share)


@pytest.mark.heavy
def test_the_command_measures_clips_and_states_its_own_error(
    run: RunConfig, subjects: Path, tmp_path: Path, capsys
) -> None:
    freeze(run, tmp_path / "run")
    infos = read_index(subjects, "val_worlds")
    whole, cut = film_framing(1000, 5, *SIZES[0]), film_framing(1000, 5, *SIZES[0])
    x0, _, x1, _ = subject_of(cut.truth)["boxes"][0]
    # Half of the subject leaves the frame: what lay at its middle is now at the left edge.
    middle = round((x0 + x1) / 2)
    cut.frames[:, :, : 96 - middle] = cut.frames[:, :, middle:].copy()
    cut.frames[:, :, 96 - middle :] = cut.frames[:, :, 95 - middle : 96 - middle].copy()
    clips = []
    for name, clip in (("whole", whole), ("cut", cut)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode_h264(clip.frames, 12.0))
        clips.append({"file": str(path), "key": infos[0].key})
    (tmp_path / "clips.json").write_text(json.dumps(clips))
    settings = [f"run={tmp_path}/run", f"clips={tmp_path}/clips.json", f"root={subjects}"]
    assert main([*settings, f"out={tmp_path}/probe.json", "check_clips=8"]) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    values = [clip["values"] for clip in found["clips"]]
    assert values[0]["subject inside the frame"] > 0.95
    assert 0.3 < values[1]["subject inside the frame"] < 0.7
    assert [value["subject whole"] for value in values] == [1.0, 0.0]
    assert found["clips"][0]["group"] == "wide"
    assert {row["measure"] for row in found["quality"]} <= set(found["measures"])
    assert read_clip(clips[0]["file"]).shape == (5, 48, 96, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=x"], "clips=: must be given"),
        (["runs=x"], "runs: Key 'runs' not in 'ProbeConfig'"),
        (["run=none", "clips=none.json", "root=x", "out=y"], "none.json"),
    ],
)
def test_a_wrong_command_is_told_what_to_do(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
