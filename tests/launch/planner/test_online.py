"""Networks that encode while training: what a pass of the compression network works in."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from launch.planner.config import PlanConfig
from launch.planner.estimate import estimate
from launch.planner.machine import load_machine
from launch.planner.online import codec_bytes, codec_working_bytes, pass_bytes
from models.codec.vae import Vae
from models.config import CODEC_CELLS, VaeConfig
from trainer.config import compose_run

SHAPES = [
    VaeConfig(),
    VaeConfig(encoder_widths=[64, 96], encoder_blocks=[3, 2]),
    VaeConfig(channels=16, encoder_widths=[96, 192], encoder_blocks=[4, 4], expansion=4),
    VaeConfig(patch=[2, 2, 2], fold=[2, 4, 4]),
    VaeConfig(encoder_widths=[16, 128], encoder_blocks=[1, 4]),  # the inner stage needs most
]


def measured(network: VaeConfig, frames: int, height: int, width: int) -> int:
    """Return the most bytes that the allocator held while a clip of these cells was encoded."""
    vae = Vae(network)
    vae.reset_parameters(torch.Generator().manual_seed(0))
    sizes = (n * s for n, s in zip((frames, height, width), network.stride, strict=True))
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
        vae.encoder(torch.zeros(1, *sizes, 3))
    assert events.profiler is not None
    found = [e for e in events.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(found, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("network", SHAPES)
@pytest.mark.parametrize("size", [(1, 12, 16), (4, 9, 13)])
def test_a_pass_needs_what_the_allocator_sees(
    network: VaeConfig, size: tuple[int, int, int]
) -> None:
    frames, height, width = size
    predicted = pass_bytes(network, frames * height * width, frames)
    assert predicted == pytest.approx(measured(network, *size), rel=0.01)


def test_an_online_plan_holds_weights_and_one_pass_and_no_clip_beyond_it() -> None:
    overrides = ["experiment=cpu_demo", "horizon.steps=10", "data.root=none"]
    run = compose_run(overrides)
    short, long = (codec_working_bytes(run, tokens) for tokens in (100, 1e6))
    assert 0 < short < long == codec_working_bytes(run, 1e7)
    network = VaeConfig()
    assert long == pass_bytes(network, CODEC_CELLS)
    machine = load_machine("cpu2")
    online, latents = (
        estimate(run, machine, PlanConfig(online=online, clip_tokens=100)).memory.host
        for online in (True, False)
    )
    assert online - latents >= codec_bytes(run) + short
    assert compose_run([*overrides, "codec=wavelet"]).codec.kind.value == "wavelet"
    assert codec_working_bytes(compose_run([*overrides, "codec=wavelet"]), 100) == 0.0
