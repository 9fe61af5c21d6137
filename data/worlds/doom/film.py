"""First-person walks through the Freedoom maps that vizdoom ships.

A walker that knows the depth of what it sees picks a free direction, moves for one clip, wanders on
unseen, and films again. Everything is decided by ``(map, seed)``. Captions come from the game's own
position, angle, depth and object labels, measured over the clip, not from what was commanded.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import vizdoom

from data.worlds.clip import Clip
from data.worlds.doom.words import STILL, STYLE, Pose, describe, height_words, motion_words
from data.worlds.truth import CameraTruth, ShotTruth, Track, Truth

TICS_PER_SECOND = 35
RESOLUTIONS = {
    (120, 160): vizdoom.ScreenResolution.RES_160X120,
    (144, 256): vizdoom.ScreenResolution.RES_256X144,
    (160, 256): vizdoom.ScreenResolution.RES_256X160,
}
HIDDEN = (
    "hud",
    "minimal_hud",
    "crosshair",
    "weapon",
    "decals",
    "messages",
    "screen_flashes",
)
# Freedoom keeps the class names of the game whose format it follows; these say what is drawn.
CREATURES = {
    "Zombieman": "zombie soldier",
    "ShotgunGuy": "shotgun soldier",
    "ChaingunGuy": "heavy soldier",
    "DoomImp": "spiky demon",
    "Demon": "charging beast",
    "Spectre": "half-invisible beast",
    "LostSoul": "flying skull",
    "Cacodemon": "floating one-eyed demon",
    "HellKnight": "horned demon",
    "BaronOfHell": "large horned demon",
    "ExplosiveBarrel": "barrel",
    "Column": "lamp post",
    "TechLamp": "lamp",
    "TechLamp2": "lamp",
}
MOVES = ("forward", "forward", "forward", "curve", "curve", "turn", "strafe", "backward")
START_TICS = 10
BLOCKED_DEPTH = 4.0  # closer than about this a wall fills the view
# Vertical field of view over height at distance 1; the game draws pixels 1.2 times as high as wide.
HALF_HEIGHT, PIXEL_ASPECT = 0.625, 1.2


def map_names() -> list[tuple[str, str]]:
    """Return every (wad, map) that the installed vizdoom ships."""
    second = [("freedoom2", f"MAP{number:02d}") for number in range(1, 33)]
    first = [("freedoom1", f"E{e}M{m}") for e in range(1, 5) for m in range(1, 10)]
    return first + second


class Walk:
    """A game kept open for one (wad, size), moved from map to map."""

    def __init__(self, wad: str, height: int, width: int) -> None:
        if (height, width) not in RESOLUTIONS:
            known = ", ".join(f"{h}x{w}" for h, w in RESOLUTIONS)
            raise ValueError(f"size={height}x{width}: not a size of this world. Use {known}.")
        game = vizdoom.DoomGame()
        game.set_doom_game_path(str(Path(vizdoom.__file__).parent / f"{wad}.wad"))
        game.set_doom_map("E1M1" if wad == "freedoom1" else "MAP01")
        game.set_screen_resolution(RESOLUTIONS[height, width])
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        for name in HIDDEN:
            getattr(game, f"set_render_{name}")(False)
        game.set_labels_buffer_enabled(True)
        game.set_depth_buffer_enabled(True)
        button = vizdoom.Button
        game.set_available_buttons(
            [
                button.MOVE_FORWARD_BACKWARD_DELTA,
                button.MOVE_LEFT_RIGHT_DELTA,
                button.TURN_LEFT_RIGHT_DELTA,
                button.USE,
            ]
        )
        variable = vizdoom.GameVariable
        game.set_available_game_variables(
            [
                variable.POSITION_X,
                variable.POSITION_Y,
                variable.ANGLE,
                variable.CAMERA_POSITION_X,
                variable.CAMERA_POSITION_Y,
                variable.CAMERA_POSITION_Z,
                variable.CAMERA_ANGLE,
                variable.CAMERA_PITCH,
                variable.CAMERA_ROLL,
            ]
        )
        game.set_episode_timeout(0)
        game.add_game_args("+sv_cheats 1 +vid_gamma 1.3")
        # The engine drops its settings into the working folder when it starts and when it ends.
        self.folder = tempfile.TemporaryDirectory(prefix="walk-")
        with contextlib.chdir(self.folder.name):
            game.set_doom_config_path(str(Path(self.folder.name) / "engine.ini"))
            game.init()
        self.game = game
        self.wad, self.height, self.width = wad, height, width

    def close(self) -> None:
        """End the engine's process."""
        self.game.close()
        self.folder.cleanup()

    def enter(self, map_name: str, seed: int) -> None:
        """Start a map afresh; the player cannot die."""
        self.game.set_seed(seed)
        self.game.set_doom_map(map_name)
        self.game.new_episode()
        self.game.send_game_command("god")
        self.move(0, 0, 0, START_TICS)

    def move(self, forward: float, right: float, turn_left: float, tics: int, use: int = 0) -> None:
        """Hold the controls for some tics (units and degrees per tic)."""
        self.game.make_action([forward, right, -turn_left, use], tics)

    def ended(self) -> bool:
        """Say whether the walk left the map through an exit."""
        return bool(self.game.is_episode_finished())

    def pose(self) -> Pose:
        """Return where the player stands."""
        x, y, angle = self.game.get_state().game_variables.tolist()[:3]
        return Pose(x, y, angle)

    def camera(self) -> list[float]:
        """Return [x, y, z, heading, pitch, roll]; the game's angle 0 looks along +x."""
        x, y, z, angle, pitch, roll = self.game.get_state().game_variables.tolist()[3:]
        return [x, y, z, (angle - 90) % 360, -pitch, roll]

    def free_depth(self) -> float:
        """Return how far the middle of the view reaches, in the depth buffer's units (0-255)."""
        depth = self.game.get_state().depth_buffer
        h, w = depth.shape
        return float(depth[h // 3 : h // 2 + 4, w // 3 : 2 * w // 3].mean())

    def face_freedom(self, rng: np.random.Generator) -> None:
        """Turn to one of eight directions, the deeper the likelier."""
        depths = []
        for _ in range(8):
            depths.append(self.free_depth())
            self.move(0, 0, 45, 1)
        weights = np.array(depths) ** 3 + 1e-3
        steps = int(rng.choice(8, p=weights / weights.sum()))
        self.move(0, 0, 45 * steps + rng.uniform(-12, 12), 1)

    def wander(self, rng: np.random.Generator) -> None:
        """Walk on unseen towards free space, opening doors on the way."""
        self.face_freedom(rng)
        for step in range(int(rng.integers(2, 6))):
            if self.ended():
                return
            before = self.pose()
            self.move(40, 0, float(rng.uniform(-2, 2)), 8, use=step % 2)
            if self.ended():
                return
            after = self.pose()
            if math.hypot(after.x - before.x, after.y - before.y) < 20:
                self.face_freedom(rng)


def controls(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw (forward, right, turn left) for one clip, in units and degrees per tic."""
    move = str(rng.choice(MOVES))
    sign = float(rng.choice([-1, 1]))
    speed = float(rng.uniform(12, 42))
    if move == "turn":
        return 0.0, 0.0, sign * float(rng.uniform(0.8, 2.6))
    if move == "strafe":
        return 0.0, sign * speed, 0.0
    if move == "curve":
        return speed, 0.0, sign * float(rng.uniform(0.5, 1.8))
    return (speed if move == "forward" else -speed), 0.0, 0.0


def film(
    wad: str, map_name: str, seed: int, plan: list[tuple[int, int]], height: int, width: int
) -> Iterator[Clip]:
    """Film one walk: a clip per (num_frames, tics per frame) of the plan.

    Clips are uint8 (num_frames, height, width, 3); 120x160, 144x256 or 160x256. Dark or blocked
    views are left out, so fewer clips than planned may come back; the same arguments give the same.
    """
    walk = Walk(wad, height, width)
    try:
        rng = np.random.default_rng([0xD00, seed, *map_name.encode()])
        walk.enter(map_name, seed)
        for number, (num_frames, tics) in enumerate(plan):
            for _ in range(4):
                clip = shoot(walk, map_name, rng, num_frames, tics)
                if clip is not None:
                    clip.key = f"doom-{wad}-{map_name}-{height}p-{seed:06d}-{number:03d}"
                    yield clip
                    break
                if walk.ended():
                    walk.enter(map_name, seed + 1 + number)
    finally:
        walk.close()


def shoot(
    walk: Walk, map_name: str, rng: np.random.Generator, num_frames: int, tics: int
) -> Clip | None:
    """Film one clip from a new place, or None if the view is blocked, dark or the map ended."""
    walk.wander(rng)
    if walk.ended():
        return None
    forward, right, turn = controls(rng)
    walk.face_freedom(rng)
    if walk.free_depth() < 2 * BLOCKED_DEPTH:
        return None
    if forward < 0:
        walk.move(0, 0, 180, 1)  # go backwards into the free side
    frames = np.empty((num_frames, walk.height, walk.width, 3), np.uint8)
    poses: list[Pose] = []
    cameras: list[list[float]] = []
    tracks: dict[str, Track] = {}
    depths: list[float] = []
    for index in range(num_frames):
        state = walk.game.get_state()
        if state is None:
            return None
        frames[index] = state.screen_buffer
        poses.append(walk.pose())
        depths.append(walk.free_depth())
        cameras.append(walk.camera())
        note_labels(tracks, state.labels, index, num_frames)
        if index < num_frames - 1:
            walk.move(forward, right, turn, tics)
    blocked = sum(depth < BLOCKED_DEPTH for depth in depths)
    if blocked > num_frames / 4 or frames.mean() < 18 or frames[:: num_frames // 2].std() < 10:
        return None
    fps = TICS_PER_SECOND / tics
    seconds = (num_frames - 1) / fps
    motion = motion_words(poses, seconds)
    if motion == STILL:
        return None
    attributes, dense, short = describe(
        [*tracks.values()], motion, height_words(cameras), float(np.mean(depths)), frames, rng
    )
    truth = Truth(
        world="doom",
        style=STYLE,
        camera=CameraTruth("first-person", motion, list(fov_of(walk.height, walk.width)), cameras),
        objects=[*tracks.values()],
        events=[],
        attributes=attributes,
        shots=[ShotTruth(0, num_frames, motion)],
    )
    source = f"doom/{walk.wad}-{map_name}"
    return Clip(frames, fps, dense, source, "", short, [], truth.to_json())


def fov_of(height: int, width: int) -> tuple[float, float]:
    """Return (horizontal, vertical) degrees of the game's view at a size."""
    half = HALF_HEIGHT * PIXEL_ASPECT * width / height
    return 2 * math.degrees(math.atan(half)), 2 * math.degrees(math.atan(HALF_HEIGHT))


def note_labels(tracks: dict[str, Track], labels: list[Any], index: int, num_frames: int) -> None:
    """Add a frame's labels to the tracks; the engine knows what can be seen, and no more."""
    for label in labels:
        if label.object_name not in CREATURES:
            continue
        kind = CREATURES[label.object_name]
        name = f"{kind.replace(' ', '-')}-{label.object_id}"
        if name not in tracks:
            empty: list[Any] = [None] * num_frames
            tracks[name] = Track(name, kind, "", "", False, empty[:], empty[:], empty[:], empty[:])
        x, y = float(label.x), float(label.y)
        tracks[name].boxes[index] = [x, y, x + label.width, y + label.height]
        tracks[name].positions[index] = [
            label.object_position_x,
            label.object_position_y,
            label.object_position_z,
        ]
