"""Rooms: furnished by a map seed, filmed along smooth camera paths, rendered by panda3d on CPU.

Everything random comes from ``(map_seed, take)``; see :mod:`data.worlds.rooms.room`.
"""

import numpy as np
from panda3d.core import Geom, NodePath

from data.worlds.clip import Clip, check_size
from data.worlds.render import shapes
from data.worlds.render.scene import close, fix_order, light, shade
from data.worlds.render.setting import SKIES
from data.worlds.render.shots import choose_cuts, plan_shots
from data.worlds.render.stage import FOV_DEGREES, Actor, stage, vertices
from data.worlds.render.view import fov_of
from data.worlds.rooms.room import SIZES, Room, Thing, design_cuts, design_path, design_room
from data.worlds.rooms.words import describe
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth, hiding_events
from data.worlds.words import STYLE

# The convex parts of every kind: mesh, scale across, scale upwards, height of its foot.
PARTS = {
    "box": ((shapes.box, 1.0, 1.0, 0.0),),
    "ball": ((shapes.sphere, 1.0, 1.0, 0.0),),
    "cylinder": ((shapes.cylinder, 1.0, 1.0, 0.0),),
    "cone": ((shapes.cone, 1.0, 1.0, 0.0),),
    "robot": (
        (shapes.cylinder, 0.7, 0.35, 0.0),
        (shapes.box, 0.8, 0.75, 0.7),
        (shapes.sphere, 0.5, 0.5, 1.95),
    ),
}


class Scene:
    """A room built for rendering."""

    def __init__(self, room: Room, map_seed: int) -> None:
        self.room = room
        rng = np.random.default_rng([0x7E87, map_seed])
        self.root = NodePath("room")
        self.things: dict[Thing, tuple[NodePath, NodePath]] = {}
        self.actors: list[Actor] = []
        floor = self.root.attach_new_node(
            shapes.node(shapes.grid(2 * room.radius, 2 * room.radius, 0.4))
        )
        floor.set_texture(shapes.pattern_texture(room.floor_pattern, *room.floor_colours, rng))
        wall_texture = shapes.pattern_texture(room.wall_pattern, *room.wall_colours, rng)
        for side in range(4):
            wall = self.root.attach_new_node(
                shapes.node(shapes.grid(2 * room.radius, room.height, 0.35))
            )
            wall.set_texture(wall_texture)
            wall.set_p(90)
            pivot = self.root.attach_new_node("pivot")
            wall.reparent_to(pivot)
            wall.set_pos(0, room.radius, room.height / 2)
            pivot.set_h(90 * side)
        for number, thing in enumerate(room.things):
            self._add(number, thing, rng)
        light(self.root, room.light, room.light_hpr, room.brightness)
        fix_order(self.root)

    def _add(self, number: int, thing: Thing, rng: np.random.Generator) -> None:
        body = self.root.attach_new_node(thing.kind)
        body.set_scale(SIZES[thing.size])
        body.set_texture(shapes.pattern_texture("plain", thing.colour, thing.colour, rng))
        track = Track(
            id=f"{thing.kind}-{number}",
            kind=thing.kind,
            colour=thing.colour,
            size=thing.size,
            subject=number == 0 and thing.kind == "robot",
        )
        actor = Actor(track, [])
        for make, across, upwards, foot in PARTS[thing.kind]:
            mesh: Geom = make()
            part = body.attach_new_node(shapes.node(mesh))
            part.set_scale(across, across, upwards)
            part.set_z(foot)
            actor.parts.append((vertices(mesh), part))
        shadow = self.root.attach_new_node(shapes.node(shapes.cylinder()))
        shadow.set_scale(SIZES[thing.size] * 1.25, SIZES[thing.size] * 1.25, 0.008)
        shade(shadow)
        self.things[thing] = body, shadow
        self.actors.append(actor)

    def move_things(self, seconds: float) -> None:
        """Put every object where it is at a time."""
        for thing, (body, shadow) in self.things.items():
            x, y, z, heading = thing.pose(seconds)
            body.set_pos(x, y, z)
            body.set_h(heading)
            shadow.set_pos(x, y, 0.01)

    def close(self) -> None:
        """Free the room."""
        close(self.root)


def film(
    map_seed: int,
    take: int,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 12.0,
    num_shots: int = 1,
    character: bool = False,
    staged: Room | None = None,
) -> Clip:
    """Render one take of the room of a map seed.

    Frames are uint8 (num_frames, height, width, 3); any size of at least 16 pixels a side. The same
    arguments give the same pixels on one machine and panda3d version. With several shots the room
    holds a robot, the subject that all of them film; ``character`` puts it there for one shot too.
    ``staged`` is filmed in the place of the room that the seed designs.
    """
    check_size(num_frames, height, width)
    rng = np.random.default_rng([0x54075, map_seed, take])
    cuts = choose_cuts(rng, num_frames, num_shots)
    room = staged or design_room(map_seed, character or num_shots > 1)
    scene = Scene(room, map_seed)
    paths = (
        [design_path(map_seed, take)] if num_shots == 1 else design_cuts(map_seed, take, num_shots)
    )
    shots = plan_shots(paths, cuts, num_frames)
    frames = stage().film(
        scene.root,
        SKIES[room.sky],
        scene.actors,
        shots,
        lambda index: scene.move_things(index / fps),
        height,
        width,
    )
    scene.close()
    tracks = [actor.track for actor in scene.actors]
    attributes, dense, short = describe(room, tracks, shots, frames, rng)
    truth = Truth(
        world="rooms",
        style=STYLE,
        camera=CameraTruth(
            kind=paths[0].kind if len(paths) == 1 else "cuts",
            words="; ".join(shot.words for shot in shots),
            fov_degrees=list(fov_of(FOV_DEGREES, height, width)),
            poses=[list(pose) for shot in shots for pose in shot.poses],
        ),
        objects=tracks,
        events=[e for track in tracks for e in hiding_events(track, cuts)],
        attributes=attributes,
        shots=[ShotTruth(shot.start, shot.stop, shot.words) for shot in shots],
    )
    variant = f"s{num_shots}" if character or num_shots > 1 else ""
    return Clip(
        frames=frames,
        fps=fps,
        caption=dense,
        short_caption=short,
        source=f"rooms/seed-{map_seed:06d}",
        key=f"rooms-{map_seed:06d}{variant}-{take:02d}",
        shots=cuts,
        truth=truth.to_json(),
    )
