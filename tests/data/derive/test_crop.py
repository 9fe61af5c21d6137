"""Square crops of a data set: which pixels stay, and what the truth says of them."""

import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data.dataset.shards import ShardWriter, read_index, read_payload, read_truth
from data.decode.decoders import decode
from data.derive.crop import CropConfig, Window, crop_dataset, crop_truth, main, square_window
from data.media.h264 import encode_h264, encode_png
from data.worlds.render.view import Pose, fov_of, project
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth

HEIGHT, WIDTH, FRAMES = 48, 80, 5


def truth_of(boxes: list[list[float] | None], fov: tuple[float, float]) -> dict:
    """Return the truth of a still camera and one object with these boxes, wholly in frame."""
    count = len(boxes)
    track = Track("ball-0", "ball", "red", "small", subject=True)
    track.boxes = boxes
    track.in_frame = [None if box is None else 1.0 for box in boxes]
    track.visible = [None if box is None else 0.75 for box in boxes]
    track.positions = [None if box is None else [0.0, 1.0, 0.0] for box in boxes]
    camera = CameraTruth("static", "stands still", list(fov), [[0.0] * 6] * count)
    shots = [ShotTruth(0, count, "stands still")]
    return Truth("rooms", "flat", camera, [track], [], {"floor": "grey"}, shots).to_json()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of a wide clip of blocks, a tall one and an image."""
    rng = np.random.default_rng(0)
    root = tmp_path / "native"
    with ShardWriter(root, "train", 1_000_000) as writer:
        for key, height, width in (("wide", HEIGHT, WIDTH), ("tall", WIDTH, HEIGHT)):
            blocks = rng.integers(16, 240, (1, height // 8, width // 8, 1), np.uint8)
            frames = np.kron(np.repeat(blocks, FRAMES, 0), np.ones((1, 8, 8, 3), np.uint8))
            boxes: list[list[float] | None] = [[2.0, 10.0, 26.0, 30.0], None] * 2
            boxes.append([16.0, 0.0, 40.0, 24.0])
            writer.write(
                meta(key, "video", FRAMES, height, width), encode_h264(frames, 12.0, crf=1), "mp4",
                truth_of(boxes, fov_of(52.0, height, width)),
            )  # fmt: skip
        image = rng.integers(0, 256, (33, 70, 3), np.uint8)
        writer.write(meta("still", "image", 1, 33, 70), encode_png(image), "png")
    return root


def meta(key: str, media: str, num_frames: int, height: int, width: int) -> dict:
    return {
        "key": key, "media": media, "num_frames": num_frames, "height": height, "width": width,
        "fps": 12.0 if num_frames > 1 else 0.0,
        "duration_seconds": num_frames / 12 if num_frames > 1 else 0.0,
        "caption": f"the {key} one, at length", "short_caption": f"{key}", "source": "blocks/1",
        "licence": "CC0", "rendered": True,
        "original": {"height": height, "width": width, "scale": 1.0, "start_seconds": 0.0},
    }  # fmt: skip


def crop(root: Path, **settings: object) -> Path:
    out = root.parent / "square"
    config = CropConfig(root=str(root), out=str(out), crf=1, **settings)
    crop_dataset(config, Console(quiet=True))
    return out


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((48, 80), Window(0, 16, 48, 48)),
        ((80, 48), Window(16, 0, 48, 48)),
        ((49, 64), Window(0, 8, 48, 48)),
        ((64, 64), Window(0, 0, 64, 64)),
    ],
)
def test_the_window_is_the_largest_even_square_in_the_middle(size, window) -> None:
    assert square_window(*size) == window


def test_crops_hold_the_middle_pixels_and_what_was_said_of_them(root: Path) -> None:
    out = crop(root)
    native = {info.key: info for info in read_index(root, "train")}
    cropped = {info.key: info for info in read_index(out, "train")}
    assert list(cropped) == list(native)
    for key, info in cropped.items():
        window = square_window(native[key].height, native[key].width)
        assert (info.height, info.width) == (window.height, window.width)
        assert (info.caption, info.short_caption, info.fps) == (
            native[key].caption, native[key].short_caption, native[key].fps,
        )  # fmt: skip
        assert info.original["crop"]["left"] == window.left
        before = decode(read_payload(root, "train", native[key]), info.media, _decoder(key))
        after = decode(read_payload(out, "train", info), info.media, _decoder(key))
        kept = before[:, window.top :, window.left :][:, : window.height, : window.width]
        difference = np.abs(after.astype(int) - kept.astype(int))
        # Grey blocks lose nothing to subsampled colour; H.264 at crf 1 rounds.
        assert difference.mean() < (0.01 if key == "still" else 1.5)


def _decoder(key: str) -> str:
    return "pillow" if key == "still" else "pyav"


@pytest.mark.heavy
def test_boxes_move_and_the_share_in_frame_is_that_of_the_crop(root: Path) -> None:
    out = crop(root)
    infos = {info.key: info for info in read_index(out, "train")}
    track = read_truth(out, "train", infos["wide"])["objects"][0]
    # 16 columns are cut off: of the first box (2 to 26) remain 10 of 24, the last one stays whole.
    assert track["boxes"] == [[-14, 10, 10, 30], None, [-14, 10, 10, 30], None, [0, 0, 24, 24]]
    share = pytest.approx(10 / 24, abs=6e-4)  # stored with three decimals
    assert track["in_frame"] == [share, None, share, None, 1.0]
    assert track["visible"] == [0.75, None, 0.75, None, 0.75]
    tall = read_truth(out, "train", infos["tall"])["objects"][0]
    assert tall["boxes"][0] == [2, -6, 26, 14]
    assert tall["in_frame"][0] == pytest.approx(14 / 20, abs=6e-4)
    assert read_truth(out, "train", infos["still"]) is None


def test_an_object_outside_the_crop_has_no_share_and_is_not_visible() -> None:
    truth = truth_of([[0.0, 0.0, 12.0, 12.0]], (80.0, 52.0))
    track = crop_truth(truth, Window(0, 16, 48, 48), 48, 80)["objects"][0]
    assert (track["in_frame"], track["visible"]) == ([0.0], [0.0])
    assert truth["objects"][0]["in_frame"] == [1.0]


def test_the_narrowed_field_of_view_projects_to_the_same_pixels() -> None:
    fov = fov_of(52.0, HEIGHT, WIDTH)
    window = square_window(HEIGHT, WIDTH)
    truth = crop_truth(truth_of([None], fov), window, HEIGHT, WIDTH)
    narrowed = tuple(truth["camera"]["fov_degrees"])
    points = np.random.default_rng(1).uniform(-1, 1, (50, 3)) + np.array([0.0, 5.0, 0.0])
    pose = Pose(0, 0, 0, 3.0, -4.0)
    native, _ = project(points, pose, fov, HEIGHT, WIDTH)
    cropped, _ = project(points, pose, narrowed, window.height, window.width)
    # The stored angle has three decimals: a few thousandths of a pixel.
    assert native - (window.left, window.top) == pytest.approx(cropped, abs=5e-3)
    assert math.isclose(narrowed[1], fov[1], abs_tol=1e-3)


def test_cropping_twice_keeps_what_is_there(root: Path) -> None:
    out = crop(root)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    crop(root)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(ValueError, match="overwrite=true"):
        crop_dataset(CropConfig(root=str(root), out=str(out), crf=30), Console(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Crop a dataset"),
        (["root=none", "out=other"], "root=none: holds no split"),
        (["root=same", "out=same"], "must be two folders"),
        (["root=none", "out=other", "square=false"], "square=false: "),
        (["roots=none"], "roots"),
    ],
)
def test_the_command_teaches_and_refuses(arguments, message, capsys) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err


def test_latents_are_not_cropped(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "latents", "train", 1_000_000) as writer:
        writer.write(meta("a", "latent", 5, 48, 80), b"none", "safetensors")
    with pytest.raises(ValueError, match="which cannot be cropped"):
        crop_dataset(
            CropConfig(root=str(tmp_path / "latents"), out=str(tmp_path / "out")),
            Console(quiet=True),
        )
