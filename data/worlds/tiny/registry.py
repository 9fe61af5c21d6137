"""The names of all tiny worlds."""

from typing import Any

from data.worlds.tiny.balls import LAWS, REGIONS, Balls
from data.worlds.tiny.brittle import Brittle
from data.worlds.tiny.canvas import Canvas
from data.worlds.tiny.panorama import Panorama
from data.worlds.tiny.rotor import DampedRotor, Rotor
from data.worlds.tiny.strip import FiniteStrip, Strip
from data.worlds.tiny.switch import Switch
from data.worlds.tiny.tiles import Tiles
from data.worlds.tiny.turntable import Turntable
from data.worlds.tiny.world import World

_ALL: tuple[World[Any], ...] = (
    Strip(),
    FiniteStrip(),
    Switch(),
    *(Balls(law) for law in LAWS),
    Panorama(),
    Turntable(),
    Canvas(),
    Tiles(),
    Rotor(),
    DampedRotor(),
    Brittle(),
)
TINY_WORLDS: dict[str, World[Any]] = {world.name: world for world in _ALL}


def tiny_world(name: str) -> World[Any]:
    """Return a world by its name; of balls also in another region, as ``uniform_unseen_2``.

    Raises ValueError where there is none of that name.
    """
    if name in TINY_WORLDS:
        return TINY_WORLDS[name]
    for law in LAWS:
        region = name.removeprefix(f"{law}_")
        if region != name and region in REGIONS:
            return Balls(law, region)
    raise ValueError(f"world={name}: is no tiny world. Use {', '.join(TINY_WORLDS)}.")
