"""A tiny clip as every other world yields one: frames, two captions and the truth."""

from typing import Any

import numpy as np

from data.worlds.clip import Clip
from data.worlds.tiny.paint import NAMES
from data.worlds.tiny.registry import tiny_world
from data.worlds.tiny.state import COLOUR, HEIGHT, SEEN, THERE, WIDTH, Array, State, X, Y, Z
from data.worlds.tiny.world import World, generator
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth, hiding_events

FPS = 8.0
STYLE = "tiny picture"


def film(name: str, seed: int, index: int, lawless: str = "") -> Clip:
    """Draw one clip of a tiny world; the same for the same arguments, in any order.

    ``lawless`` names the law that is off, or ``all``. Raises ValueError on unknown names.
    """
    world = tiny_world(name)
    state = world.draw(generator(name, seed, index), lawless)
    key = f"{name}{'-' + lawless if lawless else ''}-{seed}-{index:07d}"
    return Clip(
        frames=world.render(state),
        fps=FPS,
        caption=world.caption(state),
        source=f"{name}/{seed}-{index:07d}",
        key=key,
        short_caption=world.caption(state, dense=False),
        truth=truth_of(world, state, lawless),
    )


def truth_of(world: World[Any], state: State, lawless: str = "") -> dict[str, Any]:
    """Return a clip's truth: positions in pixels, depth towards the eye, one view from above.

    The attribute ``lawless`` stands in the truth of a twin alone; ``words`` are the actions.
    """
    height, width = world.size
    tracks = [
        track_of(f"{kind}-{number}", kind, state.bodies[:, number], height, width)
        for number, kind in enumerate(state.kinds)
        if state.bodies[:, number, THERE].any()
    ]
    # A window that moves shows its place; an eye that circles shows its angle as a heading.
    poses = [
        [0.0, 0.0, 0.0, float(np.degrees(place)), 0.0, 0.0]
        if world.name == "turntable"
        else [float(place), 0.0, 0.0, 0.0, 0.0, 0.0]
        for place in state.camera
    ]
    attributes = world.phrases(state)
    attributes |= {"world": world.name, "words": list(state.words)}
    attributes |= {"lawless": lawless} if lawless else {}
    return Truth(
        world="tiny",
        style=STYLE,
        camera=CameraTruth("flat", "does not move", None, poses, 1.0),
        objects=tracks,
        events=[event for track in tracks for event in hiding_events(track, [])],
        attributes=attributes,
        shots=[ShotTruth(0, state.num_frames, "does not move")],
    ).to_json()


def track_of(name: str, kind: str, body: Array, height: int, width: int) -> Track:
    """Return a body as a track; a body that changes its colour keeps its first one's name."""
    there = body[:, THERE] > 0
    low = body[:, [X, Y]] - body[:, [WIDTH, HEIGHT]] / 2
    high = low + body[:, [WIDTH, HEIGHT]]
    cut = np.clip(np.minimum(high, [width, height]) - np.maximum(low, 0), 0, None)
    inside = cut.prod(1) / np.maximum((high - low).prod(1), 1e-9)
    shown = np.where(inside > 0, body[:, SEEN] / np.maximum(inside, 1e-9), 0)
    track = Track(name, kind, NAMES[int(body[there][0, COLOUR])], "")
    for frame, exists in enumerate(there):
        track.boxes.append([*low[frame].tolist(), *high[frame].tolist()] if exists else None)
        track.in_frame.append(float(np.clip(inside[frame], 0, 1)) if exists else None)
        track.visible.append(float(np.clip(shown[frame], 0, 1)) if exists else None)
        track.positions.append(body[frame, [X, Y, Z]].tolist() if exists else None)
    return track
