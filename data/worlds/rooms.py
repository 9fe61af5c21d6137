"""Rooms: furnished by a map seed, filmed along a smooth camera path, rendered by panda3d on CPU.

Everything random comes from ``(map_seed, take)``; see :mod:`data.worlds.scenery`.
"""

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
from data.worlds.clip import Clip
from data.worlds.scenery import (
    LIGHT_NAMES,
    SIZES,
    SKIES,
    CameraPath,
    Thing,
    describe,
    design_path,
    design_room,
)

MESHES = {
    "box": shapes.box,
    "ball": shapes.sphere,
    "cylinder": shapes.cylinder,
    "cone": shapes.cone,
}


class Studio:
    """The renderer of one process: one off-screen buffer per frame size, kept open."""

    def __init__(self) -> None:
        # Set before the first pipe exists; x11 complaints about a missing display are expected.
        load_prc_file_data(
            "kinescale",
            "load-display p3tinydisplay\nwindow-type offscreen\naudio-library-name null\n"
            "notify-level-x11display fatal\nnotify-level-display error\n"
            # Rooms are seen once: remembering 5,000 of their meshes would cost 0.7 MB a clip.
            "geom-cache-size 64\ngeom-cache-min-frames 1\ngarbage-collect-states 0\n",
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
        # The engine would keep every texture that it ever drew.
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
        # Left alone, the renderer orders meshes by their addresses; where two meet, the first wins
        # the pixel, and pixels would differ from run to run.
        for number, mesh in enumerate(self.root.find_all_matches("**/+GeomNode")):
            mesh.set_bin("fixed", number)

    def _add(self, thing: Thing, rng: np.random.Generator) -> None:
        body = self.root.attach_new_node(shapes.node(MESHES[thing.kind]()))
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

    def close(self) -> None:
        """Free the room; its lights hold the root that they light, so they must go first."""
        self.root.clear_light()
        self.root.remove_node()

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
    scene.close()
    return Clip(
        frames=frames,
        fps=fps,
        caption=caption,
        source=f"rooms/seed-{map_seed:06d}",
        key=f"rooms-{map_seed:06d}-{take:02d}",
        truth={"camera": path.kind, "things": [vars(thing) for thing in seen]},
    )
