"""Rooms: furnished by a map seed, filmed along a smooth camera path, rendered by panda3d on CPU.

A scene has z up, metres as units and its centre at the origin. Everything random comes from
``(map_seed, take)``: the map seed decides room, light and objects, the take decides the camera, so
takes of one map are one source and never cross from training into validation.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from panda3d.core import (
    AmbientLight,
    Camera,
    DirectionalLight,
    FrameBufferProperties,
    GraphicsEngine,
    GraphicsOutput,
    GraphicsPipe,
    GraphicsPipeSelection,
    NodePath,
    PerspectiveLens,
    Point2,
    Texture,
    TransparencyAttrib,
    WindowProperties,
    load_prc_file_data,
)

from data.worlds import shapes
from data.worlds.clip import Clip, shape_name

MAX_NAMED = 3  # objects that a caption spells out; keeps it under 40 words
KINDS = {
    "box": shapes.box,
    "ball": shapes.sphere,
    "cylinder": shapes.cylinder,
    "cone": shapes.cone,
}
SIZES = {"small": 0.5, "large": 0.85}
MOTIONS = ("still", "still", "bouncing", "spinning", "circling", "sliding")
CAMERAS = ("orbit", "pan", "push in", "pull back", "truck", "crane", "static")
CAMERA_WORDS = {
    "orbit": "the camera orbits to the {side}",
    "pan": "the camera pans to the {side}",
    "push in": "the camera pushes in",
    "pull back": "the camera pulls back",
    "truck": "the camera walks sideways to the {side}",
    "crane": "the camera rises",
    "static": "the camera stands still",
}
SKIES = {
    "blue": (0.45, 0.68, 0.95),
    "pale": (0.82, 0.86, 0.90),
    "dark": (0.06, 0.07, 0.14),
    "pink": (0.95, 0.70, 0.66),
}
LIGHT_NAMES = {"warm": (1.0, 0.88, 0.70), "cool": (0.75, 0.87, 1.0), "white": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Thing:
    """One object of a room: what it is, where it stands and how it moves."""

    kind: str
    colour: str
    size: str
    motion: str
    x: float
    y: float
    phase: float
    rate: float  # cycles per second

    def pose(self, seconds: float) -> tuple[float, float, float, float]:
        """Return (x, y, z, heading in degrees) at a time."""
        turn = 2 * math.pi * (self.rate * seconds + self.phase)
        if self.motion == "bouncing":
            return self.x, self.y, 1.1 * abs(math.sin(turn / 2)), 0.0
        if self.motion == "spinning":
            return self.x, self.y, 0.0, math.degrees(turn) / 2
        if self.motion == "circling":
            return self.x + 0.7 * math.cos(turn), self.y + 0.7 * math.sin(turn), 0.0, 0.0
        if self.motion == "sliding":
            along = 0.9 * math.sin(turn)
            return (
                self.x + along * math.cos(self.phase * 6.28),
                self.y + along * math.sin(self.phase * 6.28),
                0.0,
                0.0,
            )
        return self.x, self.y, 0.0, self.phase * 90

    def words(self) -> str:
        """Name the object, with its motion if it has one."""
        motion = "" if self.motion == "still" else f" {self.motion}"
        return f"a {self.size} {self.colour} {self.kind}{motion}"


@dataclass(frozen=True)
class Room:
    """The facts of a room that its map seed decides."""

    radius: float
    height: float
    floor_pattern: str
    floor_colours: tuple[str, str]
    wall_pattern: str
    wall_colours: tuple[str, str]
    sky: str
    light: str
    light_hpr: tuple[float, float]
    brightness: float
    things: tuple[Thing, ...]


def design_room(map_seed: int) -> Room:
    """Draw a room from its map seed."""
    rng = np.random.default_rng([0x600D, map_seed])
    names = list(shapes.COLOURS)
    floor, floor_line, wall, wall_line = rng.choice(names, 4, replace=False).tolist()
    others = [name for name in names if name not in (floor, wall)]
    colours = rng.choice(others, 5, replace=False).tolist()
    things: list[Thing] = []
    wanted = int(rng.integers(2, 6))
    for _ in range(200):
        x, y = rng.uniform(-2.6, 2.6, 2).tolist()
        crowded = any(math.hypot(x - t.x, y - t.y) < 1.8 for t in things)
        if crowded or math.hypot(x, y) > 2.6:
            continue
        kind = str(rng.choice(list(KINDS)))
        motion = str(rng.choice(MOTIONS))
        if motion == "spinning" and kind != "box":
            motion = "bouncing"  # turning a round body cannot be seen, so it would be no truth
        things.append(
            Thing(
                kind=kind,
                colour=colours[len(things)],
                size=str(rng.choice(list(SIZES))),
                motion=motion,
                x=x,
                y=y,
                phase=float(rng.random()),
                rate=float(rng.uniform(0.4, 1.1)),
            )
        )
        if len(things) == wanted:
            break
    return Room(
        radius=float(rng.uniform(7.0, 10.0)),
        height=float(rng.uniform(3.0, 5.5)),
        floor_pattern=str(rng.choice(shapes.PATTERNS)),
        floor_colours=(floor, floor_line),
        wall_pattern=str(rng.choice(shapes.PATTERNS)),
        wall_colours=(wall, wall_line),
        sky=str(rng.choice(list(SKIES))),
        light=str(rng.choice(list(LIGHT_NAMES))),
        light_hpr=(float(rng.uniform(0, 360)), float(rng.uniform(-70, -35))),
        brightness=float(rng.uniform(0.85, 1.25)),
        things=tuple(things),
    )


@dataclass(frozen=True)
class CameraPath:
    """A smooth path; ``progress`` runs from 0 to 1 over a clip."""

    kind: str
    sign: int  # +1 moves to the right as seen from the camera
    start: float  # radians around the room
    sweep: float  # radians or metres, by kind
    distance: float
    height: float

    def place(self, progress: float) -> tuple[tuple[float, float, float], tuple[float, ...]]:
        """Return the camera's position and the point it looks at."""
        angle, distance, height = self.start, self.distance, self.height
        shift = self.sign * self.sweep * (progress - 0.5)
        if self.kind == "orbit":
            angle += shift
        elif self.kind == "push in":
            distance -= 1.8 * progress
        elif self.kind == "pull back":
            distance -= 1.8 * (1 - progress)
        elif self.kind == "crane":
            height += 1.6 * progress - 0.5
        eye = np.array([distance * math.cos(angle), distance * math.sin(angle), height])
        target = np.array([0.0, 0.0, 0.7])
        right = np.array([-math.sin(angle), math.cos(angle), 0.0])
        if self.kind == "pan":
            target = target + right * (1.2 * shift * distance)
        elif self.kind == "truck":
            eye, target = eye + right * (2.5 * shift), target + right * (2.5 * shift)
        return tuple(eye.tolist()), tuple(target.tolist())


def design_path(map_seed: int, take: int) -> CameraPath:
    """Draw the camera path of one take of a room."""
    rng = np.random.default_rng([0xCA4E4A, map_seed, take])
    return CameraPath(
        kind=str(rng.choice(CAMERAS)),
        sign=int(rng.choice([-1, 1])),
        start=float(rng.uniform(0, 2 * math.pi)),
        sweep=float(rng.uniform(0.35, 1.1)),
        distance=float(rng.uniform(5.0, 6.4)),
        height=float(rng.uniform(1.2, 3.0)),
    )


class Studio:
    """The renderer of one process: one off-screen buffer per frame size, kept open."""

    def __init__(self) -> None:
        # Set before the first pipe exists; x11 complaints about a missing display are expected.
        load_prc_file_data(
            "kinescale",
            "load-display p3tinydisplay\nwindow-type offscreen\naudio-library-name null\n"
            "notify-level-x11display fatal\nnotify-level-display error\n",
        )
        self.engine = GraphicsEngine.get_global_ptr()
        selection = GraphicsPipeSelection.get_global_ptr()
        self.pipe = selection.make_module_pipe("p3tinydisplay")
        if self.pipe is None:
            raise RuntimeError("panda3d=p3tinydisplay: cannot be loaded. Reinstall panda3d.")
        self.buffers: dict[tuple[int, int], tuple[GraphicsOutput, Texture, NodePath]] = {}

    def open_buffer(self, height: int, width: int) -> tuple[GraphicsOutput, Texture, NodePath]:
        """Return the buffer of a size, its read-back texture and its camera."""
        if (height, width) not in self.buffers:
            wanted = FrameBufferProperties()
            wanted.set_rgb_color(True)
            wanted.set_color_bits(24)
            wanted.set_depth_bits(16)
            buffer = self.engine.make_output(
                self.pipe,
                f"{width}x{height}",
                0,
                wanted,
                WindowProperties.size(width, height),
                GraphicsPipe.BF_refuse_window,
            )
            texture = Texture()
            buffer.add_render_texture(texture, GraphicsOutput.RTM_copy_ram)
            lens = PerspectiveLens()
            lens.set_aspect_ratio(width / height)
            lens.set_min_fov(52)
            lens.set_near_far(0.2, 60)
            camera = NodePath(Camera("camera", lens))
            buffer.make_display_region().set_camera(camera)
            self.buffers[height, width] = buffer, texture, camera
        return self.buffers[height, width]

    def render(
        self, scene: "Scene", path: CameraPath, num_frames: int, height: int, width: int, fps: float
    ) -> tuple[np.ndarray, list[Thing]]:
        """Film a scene: uint8 (F, H, W, 3) frames, and the things that were in view."""
        buffer, texture, camera = self.open_buffer(height, width)
        camera.reparent_to(scene.root)
        buffer.set_clear_color((*SKIES[scene.room.sky], 1))
        for other, _, _ in self.buffers.values():
            other.set_active(other is buffer)
        frames = np.empty((num_frames, height, width, 3), np.uint8)
        seen: set[Thing] = set()
        for index in range(num_frames):
            eye, target = path.place(index / max(1, num_frames - 1))
            camera.set_pos(*eye)
            camera.look_at(*target)
            scene.move_things(index / fps)
            self.engine.render_frame()
            image = np.frombuffer(texture.get_ram_image(), np.uint8)
            image = image.reshape(texture.get_y_size(), texture.get_x_size(), -1)
            frames[index] = image[height - 1 :: -1, :width, 2::-1][:height]
            seen |= {thing for thing in scene.things if scene.in_view(thing, camera)}
        camera.detach_node()
        # The engine would keep every texture and mesh it ever drew: 0.6 MB a clip.
        buffer.get_gsg().get_prepared_objects().release_all()
        self.engine.render_frame()
        return frames, [thing for thing in scene.room.things if thing in seen]


@lru_cache(maxsize=1)
def studio() -> Studio:
    """Return this process's renderer: panda3d's engine is one per process by design."""
    return Studio()


class Scene:
    """A room built for rendering."""

    def __init__(self, map_seed: int) -> None:
        self.room = room = design_room(map_seed)
        rng = np.random.default_rng([0x7E87, map_seed])
        self.root = NodePath("room")
        self.things: dict[Thing, tuple[NodePath, NodePath]] = {}
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
        for thing in room.things:
            self._add(thing, rng)
        self._light()

    def _add(self, thing: Thing, rng: np.random.Generator) -> None:
        body = self.root.attach_new_node(shapes.node(KINDS[thing.kind]()))
        body.set_scale(SIZES[thing.size])
        body.set_texture(shapes.pattern_texture("plain", thing.colour, thing.colour, rng))
        shadow = self.root.attach_new_node(shapes.node(shapes.cylinder()))
        shadow.set_scale(SIZES[thing.size] * 1.25, SIZES[thing.size] * 1.25, 0.008)
        shadow.set_light_off()
        shadow.set_color(0, 0, 0, 0.35)
        shadow.set_transparency(TransparencyAttrib.M_alpha)
        self.things[thing] = body, shadow

    def _light(self) -> None:
        tint = np.array(LIGHT_NAMES[self.room.light]) * self.room.brightness
        sun = DirectionalLight("sun")
        sun.set_color((*(0.75 * tint).tolist(), 1))
        held = self.root.attach_new_node(sun)
        held.set_hpr(self.room.light_hpr[0], self.room.light_hpr[1], 0)
        ambient = AmbientLight("ambient")
        ambient.set_color((*(0.42 * tint).tolist(), 1))
        self.root.set_light(held)
        self.root.set_light(self.root.attach_new_node(ambient))

    def move_things(self, seconds: float) -> None:
        """Put every object where it is at a time."""
        for thing, (body, shadow) in self.things.items():
            x, y, z, heading = thing.pose(seconds)
            body.set_pos(x, y, z)
            body.set_h(heading)
            shadow.set_pos(x, y, 0.01)

    def in_view(self, thing: Thing, camera: NodePath) -> bool:
        """Say whether an object's middle falls inside the frame."""
        body = self.things[thing][0]
        middle = camera.get_relative_point(body, (0, 0, 1))
        return bool(camera.node().get_lens().project(middle, Point2()))


def describe(room: Room, path: CameraPath, seen: list[Thing], height: int, width: int) -> str:
    """Write a clip's caption from the state of the simulator."""
    things = [thing.words() for thing in seen[:MAX_NAMED]]
    if len(seen) > MAX_NAMED:
        things.append("more objects")
    listed = ", ".join(things[:-1]) + " and " + things[-1] if len(things) > 1 else "".join(things)
    floor, line = room.floor_colours
    ground = f"{floor} and {line} {room.floor_pattern}"
    if room.floor_pattern == "plain":
        ground = floor
    side = "right" if path.sign > 0 else "left"
    camera = CAMERA_WORDS[path.kind].format(side=side)
    wall = room.wall_colours[0]
    text = (
        f"{listed or 'nothing but walls'} on {article(ground)} {ground} floor, {wall} walls, "
        f"{room.light} light; {camera}, {shape_name(height, width)}."
    )
    return text[0].upper() + text[1:]


def article(word: str) -> str:
    """Return the indefinite article of a word: only orange starts with a vowel here."""
    return "an" if word[0] in "aeio" else "a"


def film(
    map_seed: int, take: int, num_frames: int, height: int, width: int, fps: float = 12.0
) -> Clip:
    """Render one take of the room of a map seed.

    Frames are uint8 (num_frames, height, width, 3); any size of at least 16 pixels a side. The same
    arguments give the same pixels on one machine and panda3d version.
    """
    if min(height, width) < 16 or num_frames < 1:
        raise ValueError(
            f"size={num_frames}x{height}x{width}: needs a frame and sides of 16. Use 17x112x192."
        )
    scene = Scene(map_seed)
    path = design_path(map_seed, take)
    frames, seen = studio().render(scene, path, num_frames, height, width, fps)
    caption = describe(scene.room, path, seen, height, width)
    scene.root.remove_node()
    return Clip(
        frames=frames,
        fps=fps,
        caption=caption,
        source=f"rooms/seed-{map_seed:06d}",
        key=f"rooms-{map_seed:06d}-{take:02d}",
        truth={"camera": path.kind, "things": [vars(thing) for thing in seen]},
    )
