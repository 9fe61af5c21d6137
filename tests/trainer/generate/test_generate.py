"""Generation from a trained run: any shape, the same bytes twice, clear errors."""

import io
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data.dataset.shards import read_index
from models.network import Network
from models.objective import Method
from trainer.config import RunConfig, load_run
from trainer.generate.arguments import parse
from trainer.generate.files import contact_sheet
from trainer.generate.generate import load_model, main
from trainer.generate.request import Request
from trainer.generate.sampler import Sampler, generate
from trainer.identity import run_name

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
    request = Request("x.mp4", prompt="a blob", num_frames=9, height=50, width=32, steps=2)
    request.method, request.shift = Method.heun, "2.0"
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


def latents_of(
    model: tuple[RunConfig, Network], requests: list[Request], pack_tokens: int = 0
) -> dict[int, torch.Tensor]:
    """Draw requests together; return their latents."""
    return dict(Sampler(*model, pack_tokens).draw(requests))


def test_requests_of_any_settings_draw_in_company_what_they_draw_alone(trained: Path) -> None:
    model = load_model(trained)
    requests = [
        Request("a.mp4", prompt="a blob", num_frames=5, height=32, width=48, steps=2),
        Request("b.mp4", prompt="a blob", num_frames=9, height=17, width=33, steps=3, guidance=1),
        Request("c.png", prompt="two", negative="a blob", num_frames=1, height=64, width=64),
        Request("d.mp4", num_frames=5, height=32, width=32, steps=1, seed=3),
        Request("e.mp4", prompt="a blob", num_frames=5, height=32, width=48, steps=2, seed=1),
        Request("f.mp4", prompt="a blob", num_frames=5, height=40, width=48, cfg_zero=True),
    ]
    requests[2].method, requests[2].steps, requests[5].steps = Method.heun, 2, 4
    together = latents_of(model, requests, pack_tokens=100)
    backwards = latents_of(model, requests[::-1])
    assert together.keys() == set(range(6))
    for number, request in enumerate(requests):
        alone = latents_of(model, [request])[0]
        # Sums of rows may be rounded otherwise in another pack.
        torch.testing.assert_close(together[number], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(backwards[5 - number], alone, rtol=1e-5, atol=1e-5)
    assert (together[0] - together[4]).abs().max() > 0.1


def test_text_settings_reach_the_sampler(trained: Path) -> None:
    model = load_model(trained)
    # A caption hardly speaks after three steps of training.
    model[1].load_state_dict(
        {
            name: value
            + 0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
            for name, value in model[1].state_dict().items()
        }
    )

    def drawn(**settings: object) -> torch.Tensor:
        request = Request("x.png", num_frames=1, height=32, width=32, steps=2, **settings)
        return latents_of(model, [request])[0]

    plain = drawn(prompt="a blob")
    assert not torch.equal(plain, drawn(prompt="a blob", negative="grey"))
    assert not torch.equal(plain, drawn(prompt="a blob", guidance=1.0))
    assert not torch.equal(plain, drawn(prompt="a blob", cfg_zero=True))
    assert not torch.equal(plain, drawn(prompt="a blob", guidance_range=[0.9, 1.0]))
    # Without a prompt there is nothing to guide to.
    assert torch.equal(drawn(prompt=""), drawn(prompt="", guidance=7.0))


def comment_of(path: Path) -> dict:
    """Return what a file's own metadata says."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return json.loads(container.metadata["comment"])
    with Image.open(path) as image:
        found = image.info["Comment" if path.suffix == ".png" else "comment"]
        return json.loads(found)


def test_every_format_holds_the_clip_and_says_how_it_was_made(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "odd.mp4"
    prompt = 'ein Würfel, "rot"'
    words = ["num_frames=5", "height=21", "width=35", "steps=1", "seed=7", "also=[gif,png]"]
    assert main([f"run={trained}", f"prompt={prompt}", f"out={out}", *words]) == 0
    files = [out, out.with_suffix(".gif"), out.with_suffix(".png")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in files]
    assert frames_of(out).shape == (5, 21, 35, 3)
    with Image.open(files[1]) as image:
        assert image.size == (35, 21)
        # Frames that equal the one before are one that lasts longer.
        seconds = [image.seek(n) or image.info["duration"] for n in range(image.n_frames)]
        assert sum(seconds) == pytest.approx(5 * 1000 / 12, abs=5 * 5)
    facts = json.loads((out.parent / "odd.mp4.json").read_text(encoding="utf-8"))
    assert facts["prompt"] == prompt
    assert (facts["seed"], facts["height"], facts["steps"]) == (7, 21, 1)
    assert len(facts["config"]) == len(facts["weights"]) == 64
    for path in files:
        assert comment_of(path) == facts
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "odd.gif", "odd.mp4", "odd.mp4.json", "odd.png"
    ]  # fmt: skip


def test_a_contact_sheet_shows_the_first_frame_and_the_last() -> None:
    frames = np.arange(33, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 3, 5, 3), np.uint8)
    sheet = contact_sheet(frames)
    assert sheet.shape == (4 * 5 - 2, 4 * 7 - 2, 3)
    assert (sheet[0, 0] == 0).all()
    assert (sheet[-1, -1] == 32).all()
    assert (sheet[3] == 255).all()
    assert contact_sheet(frames[:1]).shape == (3, 5, 3)


def test_a_clip_longer_than_any_learned_is_drawn_with_a_warning_by_how_much(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"run={trained}", "steps=1", "height=16", "width=16", f"out={tmp_path / 'x.gif'}"]
    assert main([*words, "num_frames=37"]) == 0
    said = capsys.readouterr().err
    assert "warning: num_frames=37: 2.2 times the longest clip" in said
    assert "(17 frames)" in said
    assert main([*words, "num_frames=17"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_keys_beside_a_file_are_defaults_of_its_requests(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "requests.json"
    file.write_text('[{"out": "a.mp4"}, {"out": "b.mp4", "steps": 3, "negative": "x: y"}]')
    folder, requests, budget = parse([f"run={trained}", f"requests={file}", "steps=9", "shift=3"])
    assert (folder, budget) == (trained, 0)
    assert [r.steps for r in requests] == [9, 3]
    assert [r.route.shift for r in requests] == [3.0, 3.0]
    assert [r.negative for r in requests] == ["", "x: y"]
    assert Request("x.mp4").route.shift is None
    file.write_text('[{"out": "a.mp4", "also": ["png"]}, {"out": "a.png"}]')
    with pytest.raises(ValueError, match=r"out=a.png: is written by two requests"):
        parse([f"run={trained}", f"requests={file}"])


BAD = {
    "height=-1": "height=-1: must be at least 1",
    "width=0": "width=0: must be at least 1",
    "num_frames=0": "num_frames=0: must be at least 1",
    "num_frames=16": "num_frames=16: must be 1 + k * 4. Cut the clip to 13 frames",
    "fps=0": "fps=0: must be above 0",
    "steps=0": "steps=0: must be at least 1",
    "out=": "out=: must name a file",
    "out=x.avi": "out=x.avi: must end with one of .mp4, .gif, .png",
    "method=rk4": "method=rk4: invalid value 'rk4', expected one of [euler, heun, multistep]. See",
    "shift=-1": "shift=-1: must be auto or a positive number",
    "shift=much": "shift=much: must be auto or a positive number",
    "guidance_range=[0.9,0.1]": "guidance_range=[0.9, 0.1]: must rise",
    "pack_tokens=-5": "pack_tokens=-5: must be 0 or more",
    "height=tall": "height=tall: value 'tall'",
    "promt=red": "promt=red: is no key of a request. Did you mean prompt",
    "colour=red": "Keys: out, also, prompt, negative, task",
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
    _, (request,), _ = parse([f"run={trained}", f"prompt={prompt}", f"out={tmp_path / 'x.mp4'}"])
    assert request.prompt == prompt


def test_a_run_without_a_checkpoint_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    assert main([f"run={tmp_path}", "out=x.mp4"]) == 2
    assert "has no checkpoint. Train it first." in capsys.readouterr().err


def changed(trained: Path, folder: Path, old: str, new: str) -> Path:
    """Return a copy of a run, under its own name, whose config says something else."""
    copy = folder / run_name(load_run(trained))
    shutil.copytree(trained, copy)
    config = (copy / "config.yaml").read_text(encoding="utf-8")
    assert config.count(old) == 1
    (copy / "config.yaml").write_text(config.replace(old, new), encoding="utf-8")
    return copy


@pytest.mark.parametrize(("old", "new"), [("depth: 2", "depth: 3"), ("depth: 2", "depth: 1")])
def test_weights_of_another_config_are_refused(
    trained: Path, tmp_path: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed(trained, tmp_path, old, new)
    assert main([f"run={run}", f"out={tmp_path / 'x.mp4'}", "steps=1"]) == 2
    said = capsys.readouterr().err
    assert f"error: run={run}: its weights do not fit its config.yaml" in said
    assert said.rstrip().endswith("Put back the config.yaml that they were trained with.")
    assert not (tmp_path / "x.mp4").exists()


def test_a_config_that_was_changed_since_its_run_was_named_is_warned_of(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = changed(trained, tmp_path, "shift_tokens: 512.0", "shift_tokens: 256.0")
    words = [f"out={tmp_path / 'x.png'}", "num_frames=1", "height=16", "width=16", "steps=1"]
    assert main([f"run={run}", *words]) == 0
    assert "warning: run=" in (said := capsys.readouterr().err)
    assert "was changed since the run was named" in said
    renamed = run.rename(tmp_path / "mine")
    assert main([f"run={renamed}", *words]) == 0
    assert "warning" not in capsys.readouterr().err
