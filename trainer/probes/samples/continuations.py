"""Continuations of true clips: by a run, by its twin, and those that bound them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.state import Frames, State
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, World, generator
from models.codec.codec import Codec
from models.network import Network
from models.spans import frame_mask
from trainer.codec.build import load_codec
from trainer.config import RunConfig
from trainer.generate.generate import load_model
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler, draw_clips
from trainer.generate.tasks import Beginning
from trainer.probes.likelihood.pairs import check_seen, check_tokens, first_frames, seen_worlds
from trainer.probes.likelihood.subject import taught
from trainer.probes.samples.config import SamplesConfig
from trainer.probes.samples.judged import compared_kinds, judge, summarise
from trainer.probes.samples.pictures import packed

ASKED = ("worlds", "clips", "seed", "steps", "shown")
STREAM = 1000  # of a world's random numbers: pairs have lower ones


def probe(config: SamplesConfig) -> dict[str, Any]:
    """Draw and judge continuations in all worlds asked for.

    Raises ValueError on what cannot be asked.
    """
    folder = Path(config.run)
    run, model = load_model(folder)
    models = {"run": model}
    if config.twin:
        other, twin = load_model(Path(config.twin))
        if (other.model, other.codec) != (run.model, run.codec):
            raise ValueError(
                f"twin={config.twin}: its model or codec differs from the run's. Train the twin "
                "with the run's own settings on lawless clips."
            )
        models["twin"] = twin
    seen = seen_worlds(run.data)
    check_seen(seen, config.worlds, folder)
    worlds = config.worlds or sorted(seen.worlds)
    return {
        "run": folder.name,
        "twin": Path(config.twin).name if config.twin else None,
        "asked": {key: getattr(config, key) for key in ASKED},
        "taught": taught(run),
        "worlds": [{"world": name} | ask(config, run, models, tiny_world(name)) for name in worlds],
    }


def ask(
    config: SamplesConfig, run: RunConfig, models: dict[str, Network], world: World[Any]
) -> dict[str, Any]:
    """Judge the continuations of one world, of every source."""
    check_tokens(run, world)
    codec = load_codec(run.codec)
    states = [
        world.draw(generator(world.name, config.seed, index, STREAM))
        for index in range(config.clips)
    ]
    clips = [world.render(state) for state in states]
    sources = bounds(clips, codec, config.seed)
    for name, model in models.items():
        sources[name] = continued(config, run, model, clips)
    kinds = compared_kinds(states, world.free)
    answer: dict[str, Any] = {
        "kinds": kinds,
        "sources": {
            name: summarise(
                [
                    judge(true, read(world, frames), kinds, SPLICE)
                    for true, frames in zip(states, found, strict=True)
                ]
            )
            for name, found in sources.items()
        },
    }
    if config.shown:
        kept = {"true": clips} | {name: sources[name] for name in models}
        kept["free"] = from_nothing(config, run, models["run"], clips[0].shape)
        answer["shown"] = {name: [packed(clip) for clip in of[: config.shown]]
                           for name, of in kept.items()}  # fmt: skip
    return answer


def read(world: World[Any], frames: Frames) -> State:
    """Return the state that a world's reader finds."""
    return world.read(np.ascontiguousarray(frames))


def bounds(clips: Sequence[Frames], codec: Codec, seed: int) -> dict[str, list[Frames]]:
    """Return the ceiling and the floors: what clips would be that nobody drew.

    true: the clip itself, through the codec. static: its last given frame stands still. shuffled:
    its own later frames in another order. wrong: those of the next clip.
    """
    rng = np.random.default_rng([0x5A, seed])
    later = [clip[SPLICE:] for clip in clips]
    orders = [rng.permutation(NUM_FRAMES - SPLICE) for _ in clips]
    ends = {
        "static": [clip[SPLICE - 1 : SPLICE].repeat(len(end), 0)
                   for clip, end in zip(clips, later, strict=True)],
        "shuffled": [end[order] for end, order in zip(later, orders, strict=True)],
        "wrong": [*later[1:], later[0]],
    }  # fmt: skip
    found = {
        name: [np.concatenate([clip[:SPLICE], end]) for clip, end in zip(clips, of, strict=True)]
        for name, of in ends.items()
    }
    height, width = clips[0].shape[1:3]
    coded = (codec.encode(torch.from_numpy(clip)) for clip in clips)
    return {"true": [codec.decode(latent, height, width).numpy() for latent in coded]} | found


@torch.no_grad()
def from_nothing(
    config: SamplesConfig, run: RunConfig, model: Network, shape: tuple[int, ...]
) -> list[Frames]:
    """Draw the clips that are shown whole, with nothing given and without a caption.

    shape: (F, H, W, 3) of a clip.
    """
    requests = [
        _request(config, number, Task.text_to_video, shape) for number in range(config.shown)
    ]
    return list(draw_clips(run, model, requests))


def _request(config: SamplesConfig, number: int, task: Task, shape: tuple[int, ...]) -> Request:
    return Request(
        task=task, num_frames=shape[0], height=shape[1], width=shape[2], seed=config.seed + number,
        steps=config.steps, guidance=1.0,
    )  # fmt: skip


@torch.no_grad()
def continued(
    config: SamplesConfig, run: RunConfig, model: Network, clips: Sequence[Frames]
) -> list[Frames]:
    """Draw every clip's later frames, given those before the splice; without a caption."""
    sampler = Sampler(run, model)
    codec, given = sampler.collator.codec, first_frames(run.codec.stride[0])
    height, width = clips[0].shape[1:3]
    requests, beginnings = [], []
    for number, clip in enumerate(clips):
        requests.append(_request(config, number, Task.extend_forwards, clip.shape))
        latent = codec.encode(torch.from_numpy(np.ascontiguousarray(clip))).float()
        latent[:, given:] = 0
        _, f, h, w = latent.shape
        beginnings.append(Beginning(latent, frame_mask((f, h, w), range(given))))
    latents = dict(sampler.draw(requests, beginnings=beginnings))
    return [codec.decode(latents[n], height, width).numpy() for n in range(len(clips))]
