"""A strip whose lamp is a switch: a law that no covariance holds.

A ball that comes in under a white lamp keeps its lane behind the wall, under a black one it changes
it: the lane after is the lane before exclusive-or the lamp. Any two of lane
before, lamp and lane after are independent, so that their pixels have a covariance of zero and the
best linear denoiser's margin vanishes. All three together hold the law. The lamp past the
splice is free.
"""

from dataclasses import replace

import numpy as np

from data.worlds.tiny.state import State, Y
from data.worlds.tiny.strip import LANES, Scene, Strip
from data.worlds.tiny.world import SPLICE, coin


class Switch(Strip):
    """The strip with a switch. ``lane`` of a scene is the one before the wall."""

    name = "switch"
    laws = ("lane", "switch", "existence", "colour", "direction", "speed")

    def changes(self, prop: str) -> tuple[str, ...]:
        """A switch is the first lamp; a lamp that shall break nothing takes the lane with it."""
        return {"switch": ("lamp",), "lamp": ("lamp", "lane")}.get(prop, (prop,))

    def draw_property(self, rng: np.random.Generator, prop: str) -> object:
        """Draw one number of a scene; the switch is a part of the lamp."""
        return coin(rng) if prop == "switch" else super().draw_property(rng, prop)

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw the lane, the switch, or both lamps with the lane that leads to the same end."""
        if prop == "switch":
            return replace(scene, lamp=(coin(rng), scene.lamp[1]))
        if prop == "lamp":
            lamp = coin(rng), coin(rng)
            return replace(scene, lamp=lamp, lane=scene.lane ^ (lamp[0] != scene.lamp[0]))
        return super().redraw(rng, scene, prop)

    def unroll(self, scene: Scene) -> State:
        """Let the ball change its lane behind the wall where the first lamp is black."""
        state = super().unroll(scene)
        if scene.existence:
            ball = state.kinds.index("ball")
            state.bodies[SPLICE:, ball, Y] = LANES[scene.lane ^ (not scene.lamp[0])]
        return state
