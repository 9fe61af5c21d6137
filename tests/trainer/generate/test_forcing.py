"""Diffusion forcing in the sampler: frames one behind the other, and given ones nearly clean."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from models.dit.embed import patchify
from models.network import Network, build_network, initial_values
from models.objective import build_objective
from models.pack import TokenPack
from models.spans import frame_mask
from trainer.config import RunConfig
from trainer.generate.forcing import stairs_of
from trainer.generate.generate import main, warnings_of
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler
from trainer.generate.tasks import Beginning

from ..conftest import compose_smoke

SHAPE = {"height": 32, "width": 32, "steps": 2, "shift": "1"}
FRAME = 2 * 2  # tokens of 32 x 32 pixels


@pytest.fixture(scope="module")
def loaded() -> tuple[RunConfig, Network]:
    """Return a run and a network of its shape, whose weights make captions and places speak."""
    run = compose_smoke(Path("nowhere"), "horizon.steps=3")
    predicts, generator = build_objective(run.objective).coefficients, torch.Generator()
    model = build_network(run.model, precondition=predicts).requires_grad_(False)
    generator.manual_seed(7)
    for name, value in initial_values(run.model, generator):
        model.get_parameter(name).copy_(value)
    for value in model.parameters():
        value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return run, cast(Network, model)


class Watched:
    """The network, which notes the time of each frame and the rows that it saw."""

    def __init__(self, model: Network) -> None:
        self.model = model
        self.times: list[list[float]] = []
        self.rows: list[torch.Tensor] = []

    def __call__(self, pack: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.times.append([round(time, 3) for time in t[pack.span][::FRAME].tolist()])
        self.rows.append(x.clone())
        return self.model(pack, x, t)


def drawn(
    loaded: tuple[RunConfig, Network], request: Request, begun: Beginning | None = None
) -> tuple[torch.Tensor, Watched]:
    """Draw one request; return its latent and what the network saw."""
    watched = Watched(loaded[1])
    sampler = Sampler(loaded[0], watched)  # type: ignore[arg-type]
    beginnings = None if begun is None else [begun]
    ((_, latent),) = sampler.draw([request], beginnings=beginnings)
    return latent, watched


def given_frames(frames: int, given: list[int]) -> Beginning:
    """Return latents of 32 x 32 pixels of which some frames are given."""
    latent = torch.randn(6, frames, 4, 4, generator=torch.Generator().manual_seed(3))
    return Beginning(latent, frame_mask((frames, 4, 4), given))


def test_each_frame_stands_as_many_looks_behind_the_one_before_as_asked(
    loaded: tuple[RunConfig, Network],
) -> None:
    request = Request("x.mp4", prompt="a blob", num_frames=9, guidance=1.0, lag=1, **SHAPE)
    latent, watched = drawn(loaded, request)
    assert watched.times == [[0, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5]]
    assert torch.equal(latent, drawn(loaded, request)[0])
    assert not torch.equal(latent, drawn(loaded, replace(request, seed=1))[0])
    # All begin from the noise that they have without a lag, and none is the same in the end.
    plain, before = drawn(loaded, replace(request, lag=0))
    assert torch.equal(watched.rows[0], before.rows[0])
    assert (latent - plain).abs().amax((0, 2, 3)).min() > 1e-4


def test_company_changes_a_staircase_by_rounding_alone(loaded: tuple[RunConfig, Network]) -> None:
    request = Request("x.mp4", prompt="a blob", num_frames=9, lag=2, **SHAPE)
    others = [
        replace(request, prompt="two", lag=0, num_frames=5),
        replace(request, seed=4, lag=1, guidance_range=[0.2, 0.9], cfg_zero=True),
    ]
    together = dict(Sampler(*loaded).draw([others[0], request, others[1]]))
    for number, one in enumerate([others[0], request, others[1]]):
        torch.testing.assert_close(together[number], drawn(loaded, one)[0], rtol=1e-5, atol=1e-5)


def test_frames_begin_next_to_what_is_given(loaded: tuple[RunConfig, Network]) -> None:
    request = Request("x.mp4", num_frames=17, guidance=1.0, lag=1, **SHAPE)
    begun = given_frames(5, [3, 4])
    latent, watched = drawn(loaded, replace(request, task=Task.extend_backwards), begun)
    assert watched.times == [[0, 0, 0, 1, 1], [0, 0, 0.5, 1, 1], [0, 0.5, 1, 1, 1], [0.5, *[1] * 4]]
    assert torch.equal(latent[:, 3:], begun.latent[:, 3:])
    _, watched = drawn(loaded, replace(request, task=Task.connect), given_frames(5, [0, 4]))
    assert watched.times[1] == [1, 0.5, 0, 0, 1]


def test_what_is_given_may_be_seen_nearly_clean_and_stays_as_it_is(
    loaded: tuple[RunConfig, Network],
) -> None:
    request = Request("x.mp4", num_frames=9, guidance=1.0, given_at=0.9, **SHAPE)
    request = replace(request, task=Task.extend_forwards)
    begun = given_frames(3, [0, 1])
    latent, watched = drawn(loaded, request, begun)
    assert watched.times == [[0.9, 0.9, 0], [0.9, 0.9, 0.5]]
    assert torch.equal(latent[:, :2], begun.latent[:, :2])
    clean, sharp = drawn(loaded, replace(request, given_at=1.0), begun)
    # A tenth of noise that has nothing to do with the frame.
    grain = (watched.rows[0] - 0.9 * sharp.rows[0])[: 2 * FRAME] / 0.1
    assert grain.std().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(watched.rows[1][: 2 * FRAME], watched.rows[0][: 2 * FRAME])
    assert (latent[:, 2] - clean[:, 2]).abs().max() > 1e-4


def test_a_window_makes_new_frames_one_behind_the_other_while_old_ones_stand(
    loaded: tuple[RunConfig, Network],
) -> None:
    request = Request("x.mp4", num_frames=21, window=13, guidance=1.0, lag=1, given_at=0.9, **SHAPE)
    latent, watched = drawn(loaded, request)
    first = [[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 0.5, 0], [1, 1, 1, 0.5]]
    assert watched.times == [*first, [0.9, 0.9, 0, 0], [0.9, 0.9, 0.5, 0], [0.9, 0.9, 1, 0.5]]
    assert torch.equal(latent, drawn(loaded, request)[0])
    # What the second window was given is in the clip as the first one drew it.
    short, _ = drawn(loaded, replace(request, num_frames=13))
    assert short.shape[1] == 4
    assert not torch.equal(short, latent[:, :4])  # noise goes by the shape of the clip
    seen = watched.rows[-1][: 2 * FRAME]
    close = torch.corrcoef(torch.stack([seen.flatten(), patchify(latent[:, 2:4]).flatten()]))[0, 1]
    assert close > 0.9


def test_tokens_that_a_mask_keeps_stay_whatever_the_lag(loaded: tuple[RunConfig, Network]) -> None:
    begun = given_frames(3, [])
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[:, 0] = True
    begun = replace(begun, given=mask)
    for given_at in (1.0, 0.8):
        request = Request("x.mp4", task=Task.edit, num_frames=9, lag=1, given_at=given_at, **SHAPE)
        latent, watched = drawn(loaded, replace(request, guidance=1.0), begun)
        assert torch.equal(latent[:, :, :2], begun.latent[:, :, :2])
        assert (latent[:, :, 2:] != begun.latent[:, :, 2:]).all()
        assert watched.times[0] == [pytest.approx(given_at)] * 3


def test_one_time_serves_a_request_that_asks_for_no_other() -> None:
    begun = given_frames(3, [0])
    assert stairs_of(Request("x.mp4"), begun, (3, 4, 4)) is None
    assert stairs_of(Request("x.mp4", given_at=0.9), None, (3, 4, 4)) is None
    found = stairs_of(Request("x.mp4", given_at=0.9), begun, (3, 4, 4))
    assert found is not None
    assert found.spans.given == (False, False)


def test_a_run_that_never_met_times_of_frames_is_warned_of(
    loaded: tuple[RunConfig, Network],
) -> None:
    run = loaded[0]
    (said,) = warnings_of(run, [Request("x.mp4", lag=2), Request("y.mp4")])
    assert said.startswith("lag=2: the run never met diffusion_forcing")
    met = replace(run, objective=replace(run.objective, tasks={"diffusion_forcing": 1.0}))
    assert list(warnings_of(met, [Request("x.mp4", lag=2, given_at=0.9)])) == []


BAD = {
    "lag=-1": "lag=-1: must be at least 0",
    "lag=2 task=loop num_frames=16": "lag=2: must be 0 for loop and flow_edit",
    "given_at=0.9 task=loop num_frames=16": "given_at=0.9: must be 1 for loop and flow_edit",
    "given_at=0.1": "given_at=0.1: must be at least 0.5",
    "given_at=1.5": "given_at=1.5: must be at most 1",
}


@pytest.mark.parametrize("words", BAD)
def test_times_that_cannot_be_are_refused(
    tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run=nowhere", f"out={tmp_path / 'x.mp4'}", "steps=1", *words.split(" ")]) == 2
    assert BAD[words] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
