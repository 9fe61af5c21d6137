"""What is asked of a run for each task, and what it draws: all clips of all tasks in one go."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from data.worlds.tiny.film import FPS
from data.worlds.tiny.strip import LAMP, WALL_X
from models.network import Network
from models.spans import frame_mask
from trainer.config import RunConfig
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler, decoded
from trainer.generate.tasks import Beginning
from trainer.probes.tasks.config import TasksConfig
from trainer.probes.tasks.known import LOOP, Known, draw_known, edited, has_ball, is_loop_scene
from trainer.probes.tasks.reading import Frames

KNOWN = 3  # frames given of a clip that is gone on from, at each end of one that is joined
WINDOW = 9  # frames drawn at once, as many as clips in training have
LONG = 24  # frames of a clip that is gone on from, window by window: four of them
PROTOTYPE = 2
OTHER_SEED = 100_000  # added to a request's: other noise for the same prompt
Told = Callable[[float, float], None]


@dataclass(frozen=True)
class Worlds:
    """The true clips that are asked about."""

    strip: list[Known]
    rotor: list[Known]
    damped: list[Known]
    loops: list[Known]

    @classmethod
    def draw(cls, count: int, seed: int) -> "Worlds":
        """Draw as many clips of each world, and of the rotor those that are loops besides."""
        return cls(
            draw_known("strip", count, seed, has_ball),
            draw_known("rotor", count, seed),
            draw_known("rotor_damped", count, seed),
            draw_known("rotor", count, seed + 1, is_loop_scene),
        )


@dataclass(frozen=True)
class Order:
    """One clip that is asked for, under a group's name."""

    group: str
    request: Request
    beginning: Beginning | None


class Asked:
    """Builds requests: the prompt of each true clip, and what is given of it as exact latents."""

    def __init__(self, config: TasksConfig, sampler: Sampler) -> None:
        self._config, self._codec = config, sampler.collator.codec

    def plain(self, clip: Known, number: int, **settings: object) -> Request:
        """Return a request of a clip's size and prompt; each clip has noise of its own."""
        frames, height, width, _ = clip.frames.shape
        request = Request(
            prompt=clip.prompt, num_frames=frames, height=height, width=width, fps=FPS,
            seed=number, steps=self._config.steps, guidance=1.0,
        )  # fmt: skip
        return replace(request, **settings)  # type: ignore[arg-type]

    def given(self, frames: Frames, numbers: list[int], length: int = 0) -> Beginning:
        """Return a clip of which some frames are given, those of a longer one where asked."""
        latent = self._latent(frames)
        channels, f, h, w = latent.shape
        size = (length or f, h, w)
        held = torch.zeros(channels, *size)
        held[:, numbers] = latent[:, numbers]
        return Beginning(held, frame_mask(size, numbers))

    def without_lamp(self, frames: Frames) -> Beginning:
        """Return a strip of which everything is given but the tokens with the lamp."""
        latent = self._latent(frames)
        f, h, w = latent.shape[1:]
        made = torch.zeros(f, h // 2, w // 2, dtype=torch.bool)
        side = 2 * self._codec.config.stride[2]
        low, high = int(WALL_X - LAMP / 2), int(WALL_X + LAMP / 2)
        made[:, : -(-LAMP // side), low // side : -(-high // side)] = True
        return Beginning(latent, ~made)

    def _latent(self, frames: Frames) -> torch.Tensor:
        return self._codec.encode(torch.from_numpy(np.ascontiguousarray(frames))).float()


def made_pixels(beginning: Beginning, frames: Frames) -> np.ndarray:
    """Return which pixels of a picture are made anew where a beginning gives the others, (H, W)."""
    assert beginning.given is not None
    tokens = (~beginning.given[0]).numpy()
    height, width = frames.shape[1:3]
    rows, columns = height // tokens.shape[0], width // tokens.shape[1]
    return tokens.repeat(rows, 0).repeat(columns, 1)


def orders_of(config: TasksConfig, worlds: Worlds, asked: Asked) -> list[Order]:
    """Return all clips that are drawn."""
    guided = {"guidance": config.guidance}
    last = WINDOW - 1
    ends = [*range(KNOWN), *range(WINDOW - KNOWN, WINDOW)]
    found = []

    def add(group: str, request: Request, beginning: Beginning | None = None) -> None:
        found.append(Order(group, request, beginning))

    for n, clip in enumerate(worlds.strip):
        other = edited(clip)
        add("strip_text", asked.plain(clip, n, **guided))
        add("image", asked.plain(clip, n, task=Task.image_to_video), asked.given(clip.frames, [0]))
        regenerated = asked.plain(other, n, **guided)
        add("edit", replace(regenerated, task=Task.edit), asked.without_lamp(clip.frames))
        add("regenerated", regenerated)
    for n, clip in enumerate(worlds.rotor):
        frames = clip.frames
        add("rotor_text", asked.plain(clip, n, **guided))
        add("free", asked.plain(clip, n, seed=OTHER_SEED + n))
        add(
            "forwards",
            asked.plain(clip, n, task=Task.extend_forwards, num_frames=LONG, window=WINDOW),
            asked.given(frames, list(range(KNOWN)), LONG),
        )
        backwards = asked.given(frames, list(range(WINDOW - KNOWN, WINDOW)))
        add("backwards", asked.plain(clip, n, task=Task.extend_backwards), backwards)
        add("connect", asked.plain(clip, n, task=Task.connect), asked.given(frames, ends))
        add("prototype", asked.plain(clip, n, prototype=PROTOTYPE, strength=config.strength))
    for n, clip in enumerate(worlds.damped):
        frames = clip.frames
        backwards = asked.given(frames, list(range(WINDOW - KNOWN, WINDOW)))
        add("arrow", asked.plain(clip, n, task=Task.extend_backwards), backwards)
        turned = asked.given(frames[last::-1], list(range(KNOWN)))
        add("turned", asked.plain(clip, n, task=Task.extend_forwards), turned)
    for n, clip in enumerate(worlds.loops):
        add("loop", asked.plain(clip, n, task=Task.loop, num_frames=LOOP))
    return found


@dataclass(frozen=True)
class Drawn:
    """What a run drew: the clips of each group, and the latents of those that were edited.

    small: the prototypes.
    """

    clips: dict[str, list[Frames]]
    latents: dict[str, list[torch.Tensor]]
    small: list[Frames]


def draw(run: RunConfig, model: Network, orders: list[Order], told: Told) -> Drawn:
    """Draw all clips, side by side."""
    sampler = Sampler(run, model)
    requests = [order.request for order in orders]
    arrived = dict(sampler.draw(requests, told, [order.beginning for order in orders]))
    codec = sampler.collator.codec
    clips: dict[str, list[Frames]] = {}
    latents: dict[str, list[torch.Tensor]] = {}
    for number, order in enumerate(orders):
        latent = arrived[number]
        clips.setdefault(order.group, []).append(decoded(codec, order.request, latent))
        latents.setdefault(order.group, []).append(latent)
    wanted = [request for request in requests if request.prototype > 1]
    small = sampler.prototypes(wanted)
    drawn = [decoded(codec, each.small, latent) for each, latent in zip(wanted, small, strict=True)]
    return Drawn(clips, latents, drawn)
