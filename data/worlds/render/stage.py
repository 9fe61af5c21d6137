"""The renderer of the 3-D worlds: frames, and per object where it is and how much of it shows.

Beside each picture the stage draws an id pass: the same view in flat colours, one per object. What
an object covers in it, against what it would cover alone, is the share of it that is visible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from panda3d.core import (
    BitMask32,
    Camera,
    ColorAttrib,
    FrameBufferProperties,
    Geom,
    GeomVertexReader,
    GraphicsEngine,
    GraphicsOutput,
    GraphicsPipe,
    GraphicsPipeSelection,
    NodePath,
    PerspectiveLens,
    RenderState,
    ShadeModelAttrib,
    Texture,
    WindowProperties,
    load_prc_file_data,
)

from data.worlds.render.view import NEAR, Pose, cover, fov_of, outline, project, share_inside
from data.worlds.truth import Track

FOV_DEGREES = 52.0  # of the shorter side
FAR = 60.0
PICTURE, IDS = BitMask32.bit(0), BitMask32.bit(1)
ID_LEVELS, ID_STEP = 6, 50  # an id is three digits to base 6, drawn as channels 0, 50, ... 250
MAX_ACTORS = ID_LEVELS**3 - 1


@dataclass
class Actor:
    """An object on the stage: its track, and its convex parts as (mesh vertices, node)."""

    track: Track
    parts: list[tuple[np.ndarray, NodePath]]


@dataclass
class Shot:
    """A camera of its own from frame ``start`` to ``stop`` (exclusive): a pose per frame."""

    start: int
    stop: int
    words: str
    poses: list[Pose]


def vertices(mesh: Geom) -> np.ndarray:
    """Return the vertex positions of a mesh, (V, 3)."""
    reader = GeomVertexReader(mesh.get_vertex_data(), "vertex")
    points = []
    while not reader.is_at_end():
        points.append(tuple(reader.get_data3()))
    return np.unique(np.array(points).round(6), axis=0)


class Target:
    """An off-screen buffer of one size with its read-back texture and camera."""

    def __init__(self, engine: GraphicsEngine, pipe: GraphicsPipe, height: int, width: int) -> None:
        wanted = FrameBufferProperties()
        wanted.set_rgb_color(True)
        wanted.set_color_bits(24)
        wanted.set_depth_bits(16)
        size = WindowProperties.size(width, height)
        name = f"{width}x{height}"
        self.buffer = engine.make_output(pipe, name, 0, wanted, size, GraphicsPipe.BF_refuse_window)
        self.texture = Texture()
        self.buffer.add_render_texture(self.texture, GraphicsOutput.RTM_copy_ram)
        lens = PerspectiveLens()
        lens.set_fov(*fov_of(FOV_DEGREES, height, width))
        lens.set_near_far(NEAR, FAR)
        self.camera = NodePath(Camera("camera", lens))
        self.buffer.make_display_region().set_camera(self.camera)
        self.height, self.width = height, width

    def read(self) -> np.ndarray:
        """Return what was drawn last, (H, W, 3) RGB."""
        image = np.frombuffer(self.texture.get_ram_image(), np.uint8)
        image = image.reshape(self.texture.get_y_size(), self.texture.get_x_size(), -1)
        return image[self.height - 1 :: -1, : self.width, 2::-1][: self.height]


class Stage:
    """The renderer of one process: two off-screen buffers per frame size, kept open."""

    def __init__(self) -> None:
        # Set before the first pipe exists; x11 complaints about a missing display are expected.
        load_prc_file_data(
            "kinescale",
            "load-display p3tinydisplay\nwindow-type offscreen\naudio-library-name null\n"
            "notify-level-x11display fatal\nnotify-level-display error\n"
            # Scenes are seen once: remembering 5,000 of their meshes would cost 0.7 MB a clip.
            "geom-cache-size 64\ngeom-cache-min-frames 1\ngarbage-collect-states 0\n",
        )
        self.engine = GraphicsEngine.get_global_ptr()
        selection = GraphicsPipeSelection.get_global_ptr()
        self.pipe = selection.make_module_pipe("p3tinydisplay")
        if self.pipe is None:
            raise RuntimeError("panda3d=p3tinydisplay: cannot be loaded. Reinstall panda3d.")
        self.targets: dict[tuple[int, int], tuple[Target, Target]] = {}

    def open_targets(self, height: int, width: int) -> tuple[Target, Target]:
        """Return the picture's and the id pass's buffer of a size."""
        if (height, width) not in self.targets:
            picture, ids = (Target(self.engine, self.pipe, height, width) for _ in range(2))
            picture.camera.node().set_camera_mask(PICTURE)
            ids.camera.node().set_camera_mask(IDS)
            ids.buffer.set_clear_color((0, 0, 0, 1))
            plain = NodePath("plain")
            plain.set_light_off(100)
            plain.set_texture_off(100)
            plain.set_attrib(ShadeModelAttrib.make(ShadeModelAttrib.M_flat), 100)
            plain.set_attrib(ColorAttrib.make_flat((0, 0, 0, 1)), 100)
            plain.set_color_scale_off(100)
            ids.camera.node().set_initial_state(plain.get_state())
            ids.camera.node().set_tag_state_key("id")
            for number in range(1, MAX_ACTORS + 1):
                flat = ColorAttrib.make_flat((*(np.array(id_colour(number)) / 255).tolist(), 1))
                ids.camera.node().set_tag_state(str(number), RenderState.make(flat, 200))
            self.targets[height, width] = picture, ids
        return self.targets[height, width]

    def film(
        self,
        root: NodePath,
        sky: Sequence[float],
        actors: list[Actor],
        shots: list[Shot],
        move: Callable[[int], None],
        height: int,
        width: int,
    ) -> UInt8[np.ndarray, "F H W 3"]:
        """Film a scene, fill the actors' tracks and return the frames.

        ``move(frame)`` puts everything in place before each frame.
        """
        if len(actors) > MAX_ACTORS:
            raise ValueError(f"actors={len(actors)}: at most {MAX_ACTORS}. Use fewer objects.")
        both = self.open_targets(height, width)
        for pair in self.targets.values():
            for target in pair:
                target.buffer.set_active(pair is both)
        both[0].buffer.set_clear_color((*sky, 1))
        for number, actor in enumerate(actors, 1):
            for _, node in actor.parts:
                node.set_tag("id", str(number))
        for target in both:
            target.camera.reparent_to(root)
        frames = np.empty((shots[-1].stop, height, width, 3), np.uint8)
        for shot in shots:
            for index, pose in zip(range(shot.start, shot.stop), shot.poses, strict=True):
                move(index)
                for target in both:
                    target.camera.set_pos(*pose[:3])
                    target.camera.set_hpr(*pose[3:])
                self.engine.render_frame()
                frames[index] = both[0].read()
                drawn = id_numbers(both[1].read())
                for number, actor in enumerate(actors, 1):
                    measure(actor, drawn == number, pose, root)
        for target in both:
            target.camera.detach_node()
            # The engine would keep every texture that it ever drew.
            target.buffer.get_gsg().get_prepared_objects().release_all()
        self.engine.render_frame()
        return frames


def id_colour(number: int) -> tuple[int, int, int]:
    """Return the flat colour of an id, 1 to ``MAX_ACTORS``."""
    digits = number % ID_LEVELS, number // ID_LEVELS % ID_LEVELS, number // ID_LEVELS**2
    return tuple(ID_STEP * digit for digit in digits)  # type: ignore[return-value]


def id_numbers(image: np.ndarray) -> np.ndarray:
    """Turn an id pass into ids, (H, W); 0 is no object."""
    digits = (image.astype(np.int32) + ID_STEP // 2) // ID_STEP
    return digits[..., 0] + ID_LEVELS * digits[..., 1] + ID_LEVELS**2 * digits[..., 2]


def measure(actor: Actor, drawn: np.ndarray, pose: Pose, root: NodePath) -> None:
    """Append one frame to an actor's track, from the simulator's geometry and the id pass."""
    height, width = drawn.shape
    track = actor.track
    fov = fov_of(FOV_DEGREES, height, width)
    points: list[np.ndarray] = []
    spots: list[np.ndarray] = []
    alone = np.zeros((height, width), bool)
    for mesh, node in actor.parts:
        if node.is_hidden():
            continue
        matrix = np.array(node.get_mat(root))
        world = mesh @ matrix[:3, :3] + matrix[3, :3]
        pixels, depth = project(world, pose, fov, height, width)
        points.append(world)
        if (depth > NEAR).all():
            rows, columns, inside = cover(outline(pixels), height, width)
            alone[rows, columns] |= inside
            spots.append(pixels)
    if not points:
        track.positions.append(None)
    else:
        world = np.concatenate(points)
        track.positions.append(((world.min(0) + world.max(0)) / 2).tolist())
    if not spots:
        # Gone, or at least partly behind the camera, where a projection has no box.
        track.boxes.append(None)
        track.in_frame.append(0.0 if points else None)
        track.visible.append(0.0 if points else None)
        return
    flat = np.concatenate(spots)
    box = [*flat.min(0).tolist(), *flat.max(0).tolist()]
    track.boxes.append(box)
    track.in_frame.append(share_inside(box, height, width))
    shown, whole = int(drawn.sum()), int(alone.sum())
    track.visible.append(min(1.0, shown / whole) if whole else 0.0)


@lru_cache(maxsize=1)
def stage() -> Stage:
    """Return this process's renderer: panda3d's engine is one per process by design."""
    return Stage()
