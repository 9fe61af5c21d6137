"""Does the sampler draw on the device what it draws on CPU, and how fast?"""

import time
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from models.objective import build_objective
from trainer.config import RunConfig, compose_run
from trainer.generate.request import Request
from trainer.generate.sampler import Sampler
from trainer.gpu_checks.report import Case, Finding, Settings, relative, within
from trainer.gpu_checks.samples import build_model

CLOSE = 1e-2  # of latents in fp32, after steps whose small differences add up


def cases(settings: Settings) -> Iterator[Case]:
    """Yield one clip on both devices, and the time of another."""
    yield Case("a clip drawn on the device and on CPU, fp32", partial(_parity, settings))
    yield Case("clips of 33 frames of 256 x 256 drawn in bf16", partial(_speed, settings))


def _run(width: int) -> RunConfig:
    sizes = [f"model.width={width}", f"model.head_dim={min(width // 2, 64)}"]
    sizes.append(f"data.pack_tokens={8192 if width > 32 else 512}")
    return compose_run(["experiment=cpu_smoke", "log.wandb=disabled", *sizes])


def _draw(
    run: RunConfig, requests: list[Request], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return the latents that a network with random weights draws."""
    predicts = build_objective(run.objective).coefficients
    network = build_model(run.model, precondition=predicts).to(device, dtype)
    network.restore_buffers(device)
    with torch.no_grad():
        drawn = dict(Sampler(run, network, device=device).draw(requests))
    return [drawn[number].float().cpu() for number in range(len(requests))]


def _parity(settings: Settings) -> Finding:
    run = _run(32)
    requests = [Request(num_frames=5, height=32, width=48, prompt="a ball", steps=4)]
    (found,) = _draw(run, requests, settings.device, torch.float32)
    (expected,) = _draw(run, requests, torch.device("cpu"), torch.float32)
    return within(relative(found, expected), CLOSE)


def _speed(settings: Settings) -> Finding:
    run = _run(1024 if settings.on_cuda else 32)
    frames, side, count = (33, 256, 4) if settings.on_cuda else (5, 32, 1)
    requests = [
        Request(num_frames=frames, height=side, width=side, prompt="a ball", steps=20, seed=seed)
        for seed in range(count)
    ]
    _draw(run, requests[:1], settings.device, torch.bfloat16)  # warms up
    begun = time.perf_counter()
    latents = _draw(run, requests, settings.device, torch.bfloat16)
    second = (time.perf_counter() - begun) / count
    whole = all(bool(latent.isfinite().all()) for latent in latents)
    return Finding(f"{second:.2f} s a clip", "finite values", whole)
