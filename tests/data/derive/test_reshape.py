"""The same clips smaller and shorter."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data.dataset.shards import ShardWriter, read_index, read_payload
from data.decode.decoders import decode
from data.derive.reshape import ReshapeConfig, main, reshape_dataset, scaled
from data.media.h264 import encode_exact, encode_h264
from tests.data.conftest import meta


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of eight clips of nine frames and one of five."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        with ShardWriter(tmp_path / "native", split, 1_000_000) as writer:
            for number in range(9):
                count = 5 if number == 8 else 9
                grey = rng.integers(40, 200, (count, 3, 4, 1), np.uint8)
                frames = np.kron(grey, np.ones((1, 16, 16, 3), np.uint8))
                made = meta(f"{split}-{number}", "video", (count, 48, 64), source=f"grey/{number}")
                writer.write(made, encode_h264(frames, 12.0, crf=1), "mp4")
    return tmp_path / "native"


@pytest.mark.heavy
def test_clips_keep_their_scenes_and_words_at_half_the_size_and_length(root: Path) -> None:
    out = root.parent / "small"
    config = ReshapeConfig(str(root), str(out), scale=0.5, frames=5, min_frames=9, limit=0.5, crf=1)
    reshape_dataset(config, Console(quiet=True))
    native = {info.key: info for info in read_index(root, "train")}
    infos = read_index(out, "train")
    assert len(infos) == 4
    assert len(read_index(out, "val")) == 8  # only the one of five frames is left out
    for info in infos:
        before = native[info.key]
        assert (info.num_frames, info.height, info.width) == (5, 24, 32)
        assert (info.caption, info.fps) == (before.caption, before.fps)
        assert info.duration_seconds == pytest.approx(before.duration_seconds * 5 / 9)
        old = decode(read_payload(root, "train", before), "video", "pyav")
        new = decode(read_payload(out, "train", info), "video", "pyav")
        assert np.abs(new.astype(int) - scaled(old[:5], 0.5)).mean() < 1.5


@pytest.mark.heavy
def test_a_rate_factor_of_zero_keeps_the_colour_of_every_pixel(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    with ShardWriter(tmp_path / "native", "train", 1_000_000) as writer:
        writer.write(meta("a", "video", (5, 16, 16)), encode_exact(frames, 12.0), "mp4")
    out = tmp_path / "small"
    config = ReshapeConfig(str(tmp_path / "native"), str(out), scale=0.5, crf=0)
    reshape_dataset(config, Console(quiet=True))
    (info,) = read_index(out, "train")
    found = decode(read_payload(out, "train", info), "video", "pyav")
    assert np.array_equal(found, scaled(frames, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [("scale=2", "scale=2: must be at most 1"), ("frames=4", "frames=4: must be 0 or 1 + k"),
     ("limit=99", "data.limit=99: must be 0")],
)  # fmt: skip
def test_a_shape_that_cannot_be_made_is_refused(root, capsys, change, message) -> None:
    assert main([f"root={root}", f"out={root.parent}/x", change]) == 2
    assert message in capsys.readouterr().err
