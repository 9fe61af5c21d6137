"""Clips whose truth is known, what true clips look like at their speed, and clips without skill."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from data.worlds.tiny.paint import BLACK, GREY, TABLE, WHITE
from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.rotor import ARM, PERIODS, PHASES, Rotor
from data.worlds.tiny.rotor import Scene as Dot
from data.worlds.tiny.state import COLOUR, SEEN, State
from data.worlds.tiny.strip import LAMP, OFFSET, WALL_X, Strip
from data.worlds.tiny.strip import Scene as Ball
from data.worlds.tiny.world import World, generator
from trainer.probes.tasks.measures import differences
from trainer.probes.tasks.reading import Array, Frames, Path, read_path

SEED = 9_000  # added to a probe's seed: data sets are made of small ones
LOOP = 8  # frames of a loop, which two of the rotor's periods divide
LOOP_PERIODS = tuple(period for period in PERIODS if LOOP % period == 0)
MIDDLE = {"strip": (16.0, 4.0), "rotor": (8.0, 8.0), "rotor_damped": (8.0, 8.0)}
BODY = {"strip": "ball", "rotor": "dot", "rotor_damped": "dot"}
OFFSETS = 24  # places behind the wall at which a strip's speed is shown


@dataclass(frozen=True)
class Known:
    """A clip that a world drew.

    whole: the frames in which its body is wholly in sight (F,).
    """

    world: World[Any]
    scene: Any
    state: State
    frames: Frames
    path: Path

    @property
    def prompt(self) -> str:
        """Its dense caption."""
        return self.world.caption(self.state)

    @property
    def whole(self) -> np.ndarray:
        """In which frames its body is wholly in sight (F,)."""
        seen: np.ndarray = self.state.of(BODY[self.world.name])[:, 0, SEEN] >= 0.98
        return seen

    @property
    def area(self) -> float:
        """Pixels of its body where most of it shows."""
        return float(self.path.area.max())

    def sure(self, frames: Frames) -> Path:
        """Return the path of a clip's body where it is like this one's in colour and area."""
        return read_path(frames).sure(self.ink, self.area)

    @property
    def ink(self) -> int:
        """Its body's colour."""
        return int(self.state.of(BODY[self.world.name])[0, 0, COLOUR])


def known(world: World[Any], scene: Any) -> Known:
    """Return the clip of a scene."""
    state = world.unroll(scene)
    frames = world.render(state)
    return Known(world, scene, state, frames, read_path(frames))


def draw_known(
    name: str, count: int, seed: int, fits: Callable[[Any], bool] = lambda scene: True
) -> list[Known]:
    """Draw clips of a world whose scenes fit, of a seed that no data set has."""
    world, index = tiny_world(name), 0
    found: list[Known] = []
    while len(found) < count:
        scene = world.scene(generator(name, SEED + seed, index))
        index += 1
        if fits(scene):
            found.append(known(world, scene))
    return found


def has_ball(scene: Ball) -> bool:
    """Tell whether a strip shows a ball."""
    return scene.existence


def is_loop_scene(scene: Dot) -> bool:
    """Tell whether a rotor begins again after a loop's frames."""
    return round(2 * np.pi / scene.turn) in LOOP_PERIODS


def typical(clip: Known, order: int) -> Array:
    """Return differences of an order of true clips at a clip's speed, of its colour and light.

    Of a rotor all steps from 24 angles, of a strip those with its ball wholly in sight from 24
    places.
    """
    return _typical(clip.world.name, clip.scene, order)


@lru_cache(maxsize=4096)
def _typical(name: str, scene: Any, order: int) -> Array:
    world, found = tiny_world(name), []
    if name == "strip":
        places = np.linspace(-OFFSET, OFFSET, OFFSETS)
        scenes = [replace(scene, offset=float(place)) for place in places]
    else:
        turns = 2 * np.pi * np.arange(PHASES) / PHASES
        scenes = [replace(scene, angle=scene.angle + float(turn)) for turn in turns]
    for one in scenes:
        other = known(world, one)
        steps = len(other.frames) - order
        shown = np.all([other.whole[n : n + steps] for n in range(order + 1)], 0)
        found.append(differences(other.frames, order)[shown])
    return np.concatenate(found)


def rotor_like(ink: int, light: float, period: int) -> Known:
    """Return an even rotor of a colour, a light and a period."""
    return known(Rotor(), Dot(0.0, 2 * np.pi / period, 1, ARM, 0.0, ink, light))


def later(clip: Known, count: int) -> Array:
    """Return where an even rotor's dot is in ``count`` frames from the clip's first, (count, 2)."""
    scene, first = clip.scene, clip.state.of("dot")[0, 0, :2] - MIDDLE["rotor"]
    start = np.arctan2(first[1], first[0])
    angle = start + (1, -1)[scene.direction] * scene.turn * np.arange(count)
    around: Array = np.stack([np.cos(angle), np.sin(angle)], 1) * scene.arm
    return around + np.array(MIDDLE["rotor"])


def still(frame: Frames, count: int) -> Frames:
    """Return a frame (1, H, W, 3) that stands still."""
    return np.repeat(frame, count, 0)


def cross_fade(before: Frames, after: Frames, count: int) -> Frames:
    """Return ``count`` frames that fade from a frame to another one, both (1, H, W, 3)."""
    share = (np.arange(count) + 1)[:, None, None, None] / (count + 1)
    faded: Frames = ((1 - share) * before + share * after).round().astype(np.uint8)
    return faded


def ping_pong(clip: Known) -> Frames:
    """Return a loop that goes to the middle of the clip and comes back the same way."""
    there = list(range(LOOP // 2 + 1))
    return clip.frames[there + there[-2:0:-1]]


def hitching(clip: Known) -> Frames:
    """Return a loop of even turns whose last frame is its first one again."""
    rounds = round(LOOP * clip.scene.turn / (2 * np.pi))
    other = known(clip.world, replace(clip.scene, turn=2 * np.pi * rounds / (LOOP - 1)))
    return other.frames[:LOOP]


def edited(clip: Known) -> Known:
    """Return a strip with the other lamp lit, before the splice and after it."""
    before, after = clip.scene.lamp
    return known(clip.world, replace(clip.scene, lamp=(not before, not after)))


def without_lamp(frames: Frames) -> Frames:
    """Return a strip with nothing but the wall's grey where its lamp is."""
    bare = frames.copy()
    bare[:, :LAMP, int(WALL_X) - 1 : int(WALL_X) + 1] = TABLE[GREY].astype(np.uint8)
    return bare


def lamp_of(frames: Frames) -> np.ndarray:
    """Return the lamp's colour in every frame of a strip."""
    bright = frames[:, :LAMP, int(WALL_X) - 1 : int(WALL_X) + 1].mean((1, 2, 3)) > 128
    return np.where(bright, WHITE, BLACK)


def halved(frames: Frames) -> Frames:
    """Return frames of half the sides, by means over squares of 2 x 2 pixels."""
    count, height, width, _ = frames.shape
    squares = frames.reshape(count, height // 2, 2, width // 2, 2, 3).astype(np.float64)
    means: Frames = squares.mean((2, 4)).round().astype(np.uint8)
    return means


def is_strip(clip: Known) -> bool:
    """Tell whether a clip is of the strip."""
    return isinstance(clip.world, Strip)
