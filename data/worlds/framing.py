"""One subject of a strong colour on a plain ground, wholly inside a wide or tall frame.

The subject is often far from the middle, so a square crop would cut it: the study ``framing`` asks
whether a model that was trained on native frames keeps it in. Everything comes from the seed.
"""

import math
from dataclasses import dataclass

import numpy as np
from panda3d.core import NodePath

from data.worlds.clip import Clip, check_size
from data.worlds.render import shapes
from data.worlds.render.scene import close, fix_order, light, shade
from data.worlds.render.setting import SKIES
from data.worlds.render.stage import FOV_DEGREES, Actor, Shot, stage, vertices
from data.worlds.render.view import Pose, fov_of, project
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth
from data.worlds.words import STYLE, article, pick, upper

GROUNDS = ("grey", "white", "black")
SUBJECTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
KINDS = {"ball": shapes.sphere, "box": shapes.box}
MARGIN_PIXELS = 1.0
MIN_SIDE = 32
CAMERA = "does not move"
RADIUS = 0.85  # of a third to a half of the shorter side: tiny models must be able to draw it
MOTIONS = ("to the left", "to the right", "nearer", "away", "")


@dataclass(frozen=True)
class Framing:
    """A subject, where it goes in world units and from where it is seen."""

    kind: str
    colour: str
    ground: str
    sky: str
    motion: str
    heading: float
    path: np.ndarray  # (F, 3) of its foot
    pose: Pose


def subject_points(kind: str, heading: float) -> np.ndarray:
    """Return the vertices of a subject that stands at the origin, (V, 3)."""
    points = vertices(KINDS[kind]()) * RADIUS
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def design_framing(seed: int, num_frames: int, height: int, width: int, fps: float) -> Framing:
    """Draw a scene whose subject stays inside the frame from the first frame to the last."""
    rng = np.random.default_rng([0xF4A3E, seed])
    sky = str(rng.choice(list(SKIES)))
    colour = str(rng.choice([name for name in SUBJECTS if name != sky]))
    kind, ground = str(rng.choice(list(KINDS))), str(rng.choice(GROUNDS))
    fov = fov_of(FOV_DEGREES, height, width)
    half = np.tan(np.radians(fov) / 2)
    points: list[np.ndarray] = []
    for attempt in range(400):
        motion = str(rng.choice(MOTIONS)) if attempt < 200 else ""
        heading = float(rng.uniform(0, 90)) if kind == "box" else 0.0
        distance = float(rng.uniform(3.6, 6.5))
        # Where in the frame its middle shall be, -1 to 1 from left to right and bottom to top.
        aim = rng.uniform(-0.9, 0.9, 2) * (1.0, 0.8)
        eye = (0.0, -distance, float(rng.uniform(1.0, 2.6)))
        turn = math.degrees(math.atan(aim[0] * half[0]))
        drop = math.degrees(math.atan2(RADIUS - eye[2], distance))
        tilt = drop - math.degrees(math.atan(aim[1] * half[1]))
        if not -50 < tilt < 32:
            continue
        pose = Pose(*(round(v, 3) for v in (*eye, turn, tilt)))
        speed = float(rng.uniform(0.25, 0.8))
        step = {"to the left": (-1, 0), "to the right": (1, 0), "nearer": (0, -1), "away": (0, 1)}
        along = np.array([*step.get(motion, (0, 0)), 0.0])
        seconds = (np.arange(num_frames) - (num_frames - 1) / 2) / fps
        path = along * seconds[:, None] * speed
        points = [subject_points(kind, heading) + place for place in (path[0], path[-1])]
        boxes = [bounds(p, pose, fov, height, width) for p in points]
        if all(inside(box, height, width) for box in boxes):
            return Framing(kind, colour, ground, sky, motion, heading, path, pose)
    raise AssertionError(f"no subject found for {seed=} {height=} {width=}")


def bounds(
    points: np.ndarray, pose: Pose, fov: tuple[float, float], height: int, width: int
) -> list[float]:
    """Return the box of projected points."""
    pixels, _ = project(points, pose, fov, height, width)
    return [*pixels.min(0).tolist(), *pixels.max(0).tolist()]


def inside(box: list[float], height: int, width: int) -> bool:
    """Say whether a box lies inside the frame with a margin."""
    m = MARGIN_PIXELS
    return box[0] > m and box[1] > m and box[2] < width - m and box[3] < height - m


def film_framing(seed: int, num_frames: int, height: int, width: int, fps: float = 12.0) -> Clip:
    """Render one clip of a single subject.

    Frames are uint8 (num_frames, height, width, 3). The truth's first object is the subject; its
    box lies inside the frame in every frame. Raises ValueError on sizes too small for one.
    """
    check_size(num_frames, height, width)
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"size={height}x{width}: a side under {MIN_SIDE} pixels shows no subject. Use 48x112."
        )
    plan = design_framing(seed, num_frames, height, width, fps)
    rng = np.random.default_rng([0xF4A3F, seed])
    root = NodePath("framing")
    floor = root.attach_new_node(shapes.node(shapes.grid(80, 80, 0.3, 16)))
    floor.set_texture(shapes.pattern_texture("plain", plan.ground, plan.ground, rng))
    mesh = KINDS[plan.kind]()
    body = root.attach_new_node(shapes.node(mesh))
    body.set_scale(RADIUS)
    body.set_h(plan.heading)
    body.set_texture(shapes.pattern_texture("plain", plan.colour, plan.colour, rng))
    shadow = root.attach_new_node(shapes.node(shapes.cylinder()))
    shadow.set_scale(RADIUS * 1.25, RADIUS * 1.25, 0.008)
    shade(shadow)
    light(root, "white", (float(rng.uniform(-50, 50)), -55.0), 1.05)
    fix_order(root)
    actor = Actor(Track(f"{plan.kind}-0", plan.kind, plan.colour, "", True), [])
    actor.parts.append((vertices(mesh), body))

    def move(index: int) -> None:
        body.set_pos(*plan.path[index].tolist())
        shadow.set_pos(*plan.path[index, :2].tolist(), 0.01)

    shots = [Shot(0, num_frames, CAMERA, [plan.pose] * num_frames)]
    frames = stage().film(root, SKIES[plan.sky], [actor], shots, move, height, width)
    close(root)
    attributes, dense, short = describe(plan, actor.track, height, width, rng)
    truth = Truth(
        world="framing",
        style=STYLE,
        camera=CameraTruth(
            "static",
            CAMERA,
            list(fov_of(FOV_DEGREES, height, width)),
            [list(plan.pose)] * num_frames,
        ),
        objects=[actor.track],
        events=[],
        attributes=attributes,
        shots=[ShotTruth(0, num_frames, CAMERA)],
    )
    key, source = f"framing-{seed:06d}-{height}x{width}", f"framing/seed-{seed:06d}"
    return Clip(frames, fps, dense, source, key, short, [], truth.to_json())


def place_words(track: Track, height: int, width: int) -> str:
    """Say where the subject is: along the longer side, in fifths."""
    boxes = [box for box in track.boxes if box is not None]
    x, y = (float(np.mean([(b[i] + b[i + 2]) / 2 for b in boxes])) for i in (0, 1))
    wide = width >= height
    share, names = (x / width, ("left", "right")) if wide else (y / height, ("top", "bottom"))
    if 0.4 <= share <= 0.6:
        return "in the middle"
    name = names[0] if share < 0.5 else names[1]
    far = min(share, 1 - share) < 0.2
    if wide:
        return f"on the far {name}" if far else f"on the {name}"
    return f"at the very {name}" if far else f"at the {name}"


def describe(
    plan: Framing, track: Track, height: int, width: int, rng: np.random.Generator
) -> tuple[dict[str, str | list[str]], str, str]:
    """Return the attributes, the dense caption and the short one."""
    action = f"moves slowly {plan.motion}" if plan.motion else "stands still"
    place = place_words(track, height, width)
    who = article(track.name())
    ground = f"{article(plan.ground)} floor"
    sky = f"{article(plan.sky)} sky"
    attributes: dict[str, str | list[str]] = {
        "objects": [track.name()],
        "named": [track.name()],
        "actions": [action],
        "places": [place],
        "floor": plan.ground,
        "sky": plan.sky,
        "camera": CAMERA,
        "style": STYLE,
        "place": "plain",
        "events": [],
    }
    first = pick(
        rng,
        [
            f"{upper(who)} {place} of the picture {action} on {ground} under {sky}.",
            f"On {ground} under {sky}, {who} {action} {place} of the picture.",
            f"{upper(place)} of the picture {who} {action}, on {ground} below {sky}.",
        ],
    )
    second = pick(
        rng,
        [
            f"Nothing else is there, and the camera {CAMERA}.",
            f"It is all alone while the camera {CAMERA}.",
            f"The camera {CAMERA} and shows it whole.",
        ],
    )
    third = pick(rng, ["A simple 3-D rendering.", "It is a 3-D rendering."])
    return attributes, f"{first} {second} {third}", f"{who} on {ground}"
