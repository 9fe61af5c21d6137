"""Tasks: what is given stays as it is in the latents, and what cannot be is refused in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.media.h264 import encode_exact
from models.network import Network
from models.pack import TokenPack
from models.spans import frame_mask
from trainer.config import RunConfig
from trainer.generate.arguments import parse
from trainer.generate.generate import load_model, main, warnings_of
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler, decoded, shrunk
from trainer.generate.tasks import Beginning, fitted, read_video, trimmed

SHAPE = {"height": 32, "width": 48, "steps": 2}


@pytest.fixture(scope="module")
def loaded(trained: Path) -> tuple[RunConfig, Network]:
    """Return a run of three steps, its weights shaken so that captions and places speak."""
    run, model = load_model(trained)
    generator = torch.Generator().manual_seed(7)
    for value in model.parameters():  # type: ignore[attr-defined]
        value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return run, model


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two videos of nine frames, one of ten, an image and masks."""
    folder = tmp_path_factory.mktemp("films")
    rows, columns = np.mgrid[:32, :48]
    for name, phase, count in (("a", 0, 9), ("b", 40, 9), ("c", 9, 10), ("short", 3, 4)):
        frames = np.stack([(rows * 5 + columns * 2 + 9 * f + phase) % 200 for f in range(count)])
        stacked = np.repeat(frames[..., None], 3, 3).astype(np.uint8)
        (folder / f"{name}.mp4").write_bytes(encode_exact(stacked, 12.0))
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 9)
    Image.fromarray(stacked[0]).save(folder / "image.png")
    mask = np.zeros((32, 48), np.uint8)
    Image.fromarray(mask).save(folder / "black.png")
    Image.fromarray(mask + 255).save(folder / "white.png")
    mask[20, 5] = 255  # one pixel of the token in the second row and first column
    Image.fromarray(mask).save(folder / "dot.png")
    Image.fromarray(mask[:, :16]).save(folder / "small.png")
    return folder


def latent_of(loaded: tuple[RunConfig, Network], request: Request) -> torch.Tensor:
    """Draw one request; return its latent."""
    ((_, latent),) = Sampler(*loaded).draw([request])
    return latent


def encoded(loaded: tuple[RunConfig, Network], path: Path) -> torch.Tensor:
    """Return the latent of a video of this size."""
    return Sampler(*loaded).collator.codec.encode(torch.from_numpy(read_video(str(path), "video")))


@pytest.mark.parametrize(
    ("task", "frames", "kept", "source"),
    [
        (Task.extend_forwards, 17, slice(0, 3), slice(0, 3)),
        (Task.extend_backwards, 17, slice(3, 5), slice(1, 3)),
        (Task.connect, 25, slice(0, 3), slice(0, 3)),
    ],
)
def test_what_is_given_is_in_the_clip_to_the_bit_and_the_rest_is_drawn(
    loaded: tuple[RunConfig, Network],
    films: Path,
    task: Task,
    frames: int,
    kept: slice,
    source: slice,
) -> None:
    request = Request("x.mp4", task=task, video=str(films / "a.mp4"), num_frames=frames, **SHAPE)
    if task is Task.connect:
        request.next_video = str(films / "b.mp4")
    first, again = latent_of(loaded, request), latent_of(loaded, request)
    other = latent_of(loaded, replace(request, seed=1))
    assert torch.equal(first, again)
    assert first.shape[1] == 1 + (frames - 1) // 4
    given = encoded(loaded, films / "a.mp4")
    assert torch.equal(first[:, kept], given[:, source])
    free = [f for f in range(first.shape[1]) if f not in range(first.shape[1])[kept]]
    if task is Task.connect:
        assert torch.equal(first[:, -2:], encoded(loaded, films / "b.mp4")[:, 1:])
        free = free[:-2]
    assert all((first[:, f] - other[:, f]).abs().max() > 0.1 for f in free)
    # What is drawn knows what is given.
    stranger = latent_of(loaded, replace(request, video=str(films / "b.mp4")))
    assert (first[:, free] - stranger[:, free]).abs().max() > 1e-4


def test_an_edit_keeps_every_token_of_which_no_pixel_is_masked(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    request = Request("x.mp4", task=Task.edit, video=str(films / "a.mp4"), num_frames=9, **SHAPE)
    request.mask = str(films / "dot.png")
    changed = latent_of(loaded, request) != encoded(loaded, films / "a.mp4")
    assert changed[:, :, 2:, :2].all()
    changed[:, :, 2:, :2] = False
    assert not changed.any()


def test_an_edit_goes_the_farther_from_its_video_the_stronger_it_is(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    video, distances = encoded(loaded, films / "a.mp4"), []
    for strength in (0.01, 0.3, 0.9):
        request = Request("x.mp4", task=Task.edit, video=str(films / "a.mp4"), num_frames=9)
        request = replace(request, strength=strength, **SHAPE)
        distances.append((latent_of(loaded, request) - video).square().mean().item())
    assert distances == sorted(distances)
    assert distances[0] < 0.01 * distances[2]


def test_a_flow_edit_moves_a_video_by_what_two_prompts_differ_in(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    video = encoded(loaded, films / "a.mp4")
    request = Request("x.mp4", task=Task.flow_edit, video=str(films / "a.mp4"), num_frames=9)
    request = replace(request, prompt="a blob", source_prompt="a blob", strength=0.7, **SHAPE)
    torch.testing.assert_close(latent_of(loaded, request), video, rtol=0, atol=1e-5)
    other = latent_of(loaded, replace(request, source_prompt="quite another thing"))
    assert (other - video).abs().max() > 1e-4


def test_an_image_is_the_first_frame_and_is_cut_without_stretching(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    request = Request("x.mp4", task=Task.image_to_video, image=str(films / "image.png"), **SHAPE)
    request.num_frames = 9
    codec = Sampler(*loaded).collator.codec
    image = torch.from_numpy(np.array(Image.open(films / "image.png")))[None]
    assert torch.equal(latent_of(loaded, request)[:, :1], codec.encode(image))
    last = latent_of(loaded, replace(request, frames=[-1]))
    still = codec.encode(image.repeat(5, 1, 1, 1))
    assert torch.equal(last[:, -1], still[:, -1])
    circle = np.hypot(*(np.mgrid[:60, :90] - np.array([30, 45]).reshape(2, 1, 1))) < 20
    picture = np.repeat(circle[None, ..., None], 3, 3).astype(np.uint8) * 255
    small = fitted(picture, 30, 30)[0, ..., 0] > 127
    assert small.any(0).sum() == pytest.approx(small.any(1).sum(), abs=1)
    assert small.any(0).sum() == pytest.approx(20, abs=1)


def test_a_loop_has_no_first_frame_wherever_it_is_cut(
    loaded: tuple[RunConfig, Network],
) -> None:
    request = Request("x.mp4", task=Task.loop, num_frames=16, prompt="a blob", **SHAPE)
    latent = latent_of(loaded, request)
    codec = Sampler(*loaded).collator.codec
    frames = decoded(codec, request, latent)
    assert latent.shape[1] == 4
    assert frames.shape == (16, 32, 48, 3)
    later = decoded(codec, request, latent.roll(1, 1))
    assert np.array_equal(later, np.roll(frames, 4, 0))


def test_a_prototype_is_what_the_full_clip_begins_from(
    loaded: tuple[RunConfig, Network],
) -> None:
    noise = torch.randn(6, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert shrunk(noise, 2).std() == pytest.approx(1.0, abs=0.03)
    assert shrunk(noise, 2)[0, 0, 0, 0] == pytest.approx(noise[0, 0, :2, :2].sum().item() / 2)
    request = Request("x.mp4", num_frames=5, height=64, width=64, steps=2, prototype=2)
    request.strength = 0.01
    latent = latent_of(loaded, request)
    squares = latent.unflatten(3, (4, 2)).unflatten(2, (4, 2))
    assert (squares - squares.mean((3, 5), keepdim=True)).abs().max() < 0.1 * latent.std()
    # The prototype can be had by itself: what the full clip hardly leaves at such a strength.
    (small,) = Sampler(*loaded).prototypes([request])
    assert small.shape[2:] == (4, 4)
    assert (small - squares.mean((3, 5))).abs().max() < 0.1 * latent.std()


def test_latents_that_are_handed_in_take_the_place_of_files(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    asked = Request("x.mp4", task=Task.extend_forwards, num_frames=17, **SHAPE)
    named = replace(asked, video=str(films / "a.mp4"))
    known = encoded(loaded, films / "a.mp4")
    held = torch.cat([known, torch.zeros(known.shape[0], 2, *known.shape[2:])], 1)
    begun = Beginning(held, frame_mask(tuple(held.shape[1:]), range(3)))  # type: ignore[arg-type]
    plain = Request("x.mp4", num_frames=17, **SHAPE)
    drawn = dict(Sampler(*loaded).draw([asked, plain], beginnings=[begun, None]))
    torch.testing.assert_close(drawn[0], latent_of(loaded, named), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(drawn[1], latent_of(loaded, plain), atol=1e-4, rtol=1e-4)


def test_a_long_clip_goes_from_window_to_window_in_latents(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    run, model = loaded
    rows: list[int] = []

    def watched(pack: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return model(pack, x, t)

    request = Request("x.mp4", num_frames=29, window=13, guidance=1.0, **SHAPE)
    sampler = Sampler(run, watched)  # type: ignore[arg-type]
    ((_, latent),) = sampler.draw([request])
    frame = 2 * 3  # tokens of 32 x 48 pixels
    assert latent.shape[1] == 8
    assert rows == [4 * frame] * 2 * 3  # two looks a window, which brings four frames, then two
    assert "codec" not in vars(sampler.collator)  # nothing was decoded or encoded
    assert torch.equal(latent, latent_of(loaded, request))
    assert (latent.flatten(2).std(2).mean(0) > 0.1).all()
    # The first window does not know what comes, the second goes on from it.
    other = Request("x.mp4", num_frames=29, window=13, guidance=1.0, seed=1, **SHAPE)
    assert not torch.equal(latent, latent_of(loaded, other))
    back = replace(request, task=Task.extend_backwards, video=str(films / "a.mp4"))
    assert torch.equal(latent_of(loaded, back)[:, -2:], encoded(loaded, films / "a.mp4")[:, 1:])


def test_a_task_that_the_run_never_met_is_drawn_with_a_warning(
    loaded: tuple[RunConfig, Network], films: Path
) -> None:
    run, video = loaded[0], str(films / "a.mp4")
    longer = Request("x.mp4", task=Task.extend_forwards, video=video)
    ways = [longer, Request("y.mp4", task=Task.edit, video=video, strength=0.5), Request("z.mp4")]
    (said,) = warnings_of(run, ways)
    assert said.startswith("task=extend_forwards: the run never met extend_forwards")
    learned = replace(run, objective=replace(run.objective, tasks={"extend_forwards": 1.0}))
    assert list(warnings_of(learned, ways)) == []


BAD = {
    "window=3": "window=3: must hold two latents",
    "window=9 task=loop num_frames=16": "window=9: must be 0 for loop",
    "task=zoom": "task=zoom: invalid value 'zoom', expected one of [text_to_video, image_to_video",
    "task=image_to_video": "image=: must name a file for task=image_to_video",
    "task=image_to_video image={films}/a.mp4": "a.mp4: is no image",
    "task=image_to_video image={films}/image.png frames=[99]": "the clip has frames 0 to 16",
    "task=image_to_video image={films}/image.png num_frames=1": "leaves nothing to make",
    "image={films}/image.png": "must be left out of task=text_to_video; it is for image_to_video",
    "task=extend_forwards video={films}/none.mp4": "none.mp4: cannot be read",
    "task=extend_forwards video={films}/noise.mp4": "noise.mp4: is no video",
    "task=extend_forwards video={films}/a.mp4 num_frames=9": "has nothing to add to what is given",
    "task=extend_backwards video={films}/short.mp4": "short.mp4: has 4 frames, too few for task",
    "task=connect video={films}/a.mp4 next_video={films}/short.mp4": "short.mp4: has 4 frames, too",
    "task=extend_forwards video={films}/image.png": "image.png: is no video",
    "task=connect video={films}/a.mp4": "next_video=: must name a file for task=connect",
    "task=edit video={films}/a.mp4": "strength=1.0: must be below 1 where no mask",
    "task=edit video={films}/a.mp4 mask={films}/small.png": "has 16x32 pixels, the clip 48x32",
    "task=edit video={films}/a.mp4 mask={films}/black.png": "leaves nothing to make",
    "task=edit video={films}/a.mp4 strength=0.5 num_frames=17": "keeps the length of the video",
    "task=loop num_frames=17": "num_frames=17: task=loop needs whole latents",
    "prototype=2": "strength=1.0: must be below 1 with a prototype",
    "prototype=3 strength=0.5 height=64 width=64": "prototype=3: cannot be",
}


@pytest.mark.parametrize("words", BAD)
def test_a_task_that_cannot_be_is_refused_before_anything_is_written(
    trained: Path, films: Path, tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"run={trained}", f"out={tmp_path / 'x.mp4'}", "steps=1"]
    assert main([*arguments, *words.format(films=films).split(" ")]) == 2
    assert BAD[words] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_video_says_the_shape_of_what_is_made_of_it(films: Path) -> None:
    def asked(*words: str) -> Request:
        return parse(["run=r", "out=x.mp4", *words])[1][0]

    edit = asked("task=edit", f"video={films}/c.mp4", "strength=0.5")
    assert edit.shape == (10, 32, 48)
    assert trimmed(edit, 4).shape == (9, 32, 48)
    longer = asked("task=extend_forwards", f"video={films}/c.mp4", "num_frames=33")
    assert longer.shape == (33, 32, 48)
    assert asked("task=image_to_video", f"image={films}/image.png", "height=64").height == 64
