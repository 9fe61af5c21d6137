"""Generation from a trained run: any shape, the same bytes twice, clear errors."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.dataset.shards import read_index
from trainer.generate.generate import Request, generate, load_model, main

GOLDEN_MEAN, GOLDEN_SPREAD = 74.0594, 24.4389  # of the pixels of one request


def frames_of(path: Path) -> np.ndarray:
    with av.open(io.BytesIO(path.read_bytes())) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_a_clip_of_the_asked_shape_is_written_the_same_twice(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "a.mp4", tmp_path / "folder" / "b.mp4"]
    for path in paths:
        shape = ["num_frames=9", "height=50", "width=32", "steps=2", "fps=8"]
        assert main([f"run={trained}", "prompt=a blob", f"out={path}", *shape]) == 0
    assert frames_of(paths[0]).shape == (9, 50, 32, 3)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]


def test_a_request_draws_the_noise_that_it_always_drew(trained: Path) -> None:
    request = Request(out="x.mp4", prompt="a blob", num_frames=9, height=50, width=32, steps=2)
    (frames,) = generate(*load_model(trained), [request])
    assert frames.shape == (9, 50, 32, 3)
    assert frames.mean() == pytest.approx(GOLDEN_MEAN, abs=0.02)
    assert frames.std() == pytest.approx(GOLDEN_SPREAD, abs=0.02)


def test_a_file_of_requests_is_sampled_together_with_its_reference(
    trained: Path, latents: Path, tmp_path: Path
) -> None:
    key = read_index(latents, "val_worlds")[0].key
    common = {"height": 32, "width": 48, "steps": 2, "num_frames": 5}
    requests = [
        {"out": str(tmp_path / "clip.mp4"), "prompt": "one", **common},
        {"out": str(tmp_path / "other.mp4"), "prompt": "one", **common, "seed": 1},
        {"out": str(tmp_path / "image.png"), **common, "num_frames": 1},
        {
            "out": str(tmp_path / "reference.mp4"),
            "reference": {"root": str(latents), "split": "val_worlds", "key": key},
        },
    ]
    file = tmp_path / "requests.json"
    file.write_text(json.dumps(requests))
    assert main([f"run={trained}", f"requests={file}"]) == 0
    assert frames_of(tmp_path / "clip.mp4").shape == (5, 32, 48, 3)
    assert (tmp_path / "clip.mp4").read_bytes() != (tmp_path / "other.mp4").read_bytes()
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (48, 32)
    assert frames_of(tmp_path / "reference.mp4").shape == (17, 64, 96, 3)
    # Company changes nothing: the same request alone starts from the same noise.
    alone = tmp_path / "alone.mp4"
    shape = [f"{name}={value}" for name, value in common.items()]
    assert main([f"run={trained}", "prompt=one", f"out={alone}", *shape]) == 0
    difference = frames_of(alone).astype(int) - frames_of(tmp_path / "clip.mp4")
    assert abs(difference).max() <= 2


BAD = {
    "height=33": "height=33: must be a multiple of 2",
    "width=0": "width=0: must be at least 2",
    "num_frames=0": "num_frames=0: must be at least 1",
    "num_frames=16": "num_frames=16: must be 1 + k * 4. Cut the clip to 13 frames",
    "fps=0": "fps=0: must be above 0",
    "steps=0": "steps=0: must be at least 1",
    "out=": "out=: must name a file",
    "height=tall": "height: Value 'tall'",
    "colour=red": "Keys: out, prompt, num_frames",
    "requests=missing.json": "missing.json",
    "reference.key=nobody": "reference={'key': 'nobody'}: must hold root, split and key",
    "run=": "run=: must name a run folder",
    "run=nowhere": "run=nowhere: has no config.yaml",
}


@pytest.mark.parametrize("argument", BAD)
def test_a_bad_request_is_named(
    trained: Path, tmp_path: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"run={trained}", "prompt=x", f"out={tmp_path / 'x.mp4'}", "steps=1", argument]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert BAD[argument] in said
    assert not (tmp_path / "x.mp4").exists()


@pytest.mark.parametrize("prompt", ["a cube: red", "[1, 2]", "yes", "1.5", "a = b", "${x}", "null"])
def test_any_text_is_a_prompt(trained: Path, tmp_path: Path, prompt: str) -> None:
    from trainer.generate.generate import parse

    _, (request,) = parse([f"run={trained}", f"prompt={prompt}", f"out={tmp_path / 'x.mp4'}"])
    assert request.prompt == prompt


def test_a_run_without_a_checkpoint_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    assert main([f"run={tmp_path}", "out=x.mp4"]) == 2
    assert "has no checkpoint. Train it first." in capsys.readouterr().err
