"""A clip of sixty seconds, window by window: what is held does not grow with it."""

import gc
from pathlib import Path

import pytest
import torch

from models.pack import TokenPack
from trainer.generate.generate import load_model
from trainer.generate.request import Request
from trainer.generate.sampler import Sampler, decoded

FPS, WINDOW = 12, 33
FRAMES = 60 * FPS + 1


def held_bytes() -> int:
    """Return the bytes of all tensors that are alive."""
    gc.collect()
    # By its type: what only claims to be of a class (isinstance asks it) may warn or import, and
    # tensors of shapes alone, which other tests leave in the process, have no storage to ask.
    real = (torch.Tensor, torch.nn.Parameter)
    found = [one for one in gc.get_objects() if type(one) in real and one.device.type == "cpu"]
    alive = [one.untyped_storage() for one in found]
    return sum({storage.data_ptr(): storage.nbytes() for storage in alive}.values())


@pytest.mark.heavy
@pytest.mark.parametrize(("lag", "given_at"), [(0, 1.0), (1, 0.95)], ids=["plain", "forcing"])
def test_sixty_seconds_hold_no_more_in_the_last_window_than_in_the_second(
    trained: Path, summary_table, lag: int, given_at: float
) -> None:
    run, model = load_model(trained)
    looks: list[int] = []
    held: dict[int, int] = {}

    def watched(pack: TokenPack, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        looks.append(len(x))
        if len(looks) in watch:
            held[len(looks)] = held_bytes()
        return model(pack, x, t)

    request = Request(
        "x.mp4", num_frames=FRAMES, window=WINDOW, height=32, width=48, fps=FPS,
        steps=2, guidance=1.0, lag=lag, given_at=given_at,
    )  # fmt: skip
    latents, size = 1 + (FRAMES - 1) // 4, 1 + (WINDOW - 1) // 4
    windows = 1 + -(-(latents - size) // (size - size // 2))
    # Two looks a window, and one for each further frame behind: of all of it, then of its half.
    first, each = 2 + lag * (size - 1), 2 + lag * (size - size // 2 - 1)
    left = latents - size - (windows - 2) * (size - size // 2)  # for the last window to make
    total = first + (windows - 2) * each + 2 + lag * (left - 1)
    watch = {first + 1, first + each * (windows // 2), total - 1}
    ((_, latent),) = Sampler(run, watched).draw([request])  # type: ignore[arg-type]
    frame = 2 * 3  # tokens of 32 x 48 pixels
    assert len(looks) == total
    assert max(looks) == size * frame
    assert latent.shape[1] == latents
    second, *later = [held[look] for look in sorted(held)]
    # Of four windows' latents, which is less than an eighth of what keeping all of them would add.
    slack = 4 * latent[:, :size].nbytes
    assert max(later) <= second + slack
    assert slack < (windows - 2) * latent[:, :size].nbytes / 8
    frames = decoded(Sampler(run, model).collator.codec, request, latent)
    assert frames.shape == (FRAMES, 32, 48, 3)
    # What drifts in an untrained network is no model's drift: docs/studies/tasks has that of one.
    row = summary_table(
        "Sixty seconds by windows", ("lag", "windows", "held in the second", "in the last")
    )
    row(lag, windows, f"{second:,} B", f"{later[-1]:,} B")
