"""First-person walks through the Freedoom maps that vizdoom ships.

A walker that knows the depth of what it sees picks a free direction, moves for one clip, wanders on
unseen, and films again. Everything is decided by ``(map, seed)``. Captions come from the game's own
position, angle, depth and object labels, measured over the clip, not from what was commanded.
"""

import contextlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import vizdoom

from data.worlds.clip import Clip, shape_name

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
    "Zombieman": "a zombie soldier",
    "ShotgunGuy": "a shotgun soldier",
    "ChaingunGuy": "a heavy soldier",
    "DoomImp": "a spiky demon",
    "Demon": "a charging beast",
    "Spectre": "a half-invisible beast",
    "LostSoul": "a flying skull",
    "Cacodemon": "a floating one-eyed demon",
    "HellKnight": "a horned demon",
    "BaronOfHell": "a large horned demon",
    "ExplosiveBarrel": "a barrel",
    "Column": "a lamp post",
    "TechLamp": "a lamp",
    "TechLamp2": "a lamp",
}
MOVES = ("forward", "forward", "forward", "curve", "curve", "turn", "strafe", "backward")
START_TICS = 10
BLOCKED_DEPTH = 4.0  # closer than about this a wall fills the view
STILL = "standing still"


def map_names() -> list[tuple[str, str]]:
    """Return every (wad, map) that the installed vizdoom ships."""
    second = [("freedoom2", f"MAP{number:02d}") for number in range(1, 33)]
    first = [("freedoom1", f"E{e}M{m}") for e in range(1, 5) for m in range(1, 10)]
    return first + second


@dataclass
class Pose:
    """Where the player stands: map units and degrees counter-clockwise."""

    x: float
    y: float
    angle: float


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
            [variable.POSITION_X, variable.POSITION_Y, variable.ANGLE]
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
        x, y, angle = self.game.get_state().game_variables.tolist()
        return Pose(x, y, angle)

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
    names: list[str] = []
    depths: list[float] = []
    for index in range(num_frames):
        state = walk.game.get_state()
        if state is None:
            return None
        frames[index] = state.screen_buffer
        poses.append(walk.pose())
        depths.append(walk.free_depth())
        big = walk.height * walk.width / 250
        names += [label.object_name for label in state.labels if label.width * label.height > big]
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
    caption = describe(walk, map_name, motion, names, float(np.mean(depths)))
    return Clip(
        frames=frames,
        fps=fps,
        caption=caption,
        source=f"doom/{walk.wad}-{map_name}",
        key="",
        truth={"path": [[p.x, p.y, p.angle] for p in poses]},
    )


def measured_turn(poses: list[Pose]) -> float:
    """Return the total turn in degrees, positive to the left."""
    return sum((b.angle - a.angle + 180) % 360 - 180 for a, b in pairwise(poses))


def motion_words(poses: list[Pose], seconds: float) -> str:
    """Say how the player moved, from measured poses (32 map units are about a metre)."""
    turn = measured_turn(poses)
    ahead = aside = 0.0
    for a, b in pairwise(poses):
        heading = math.radians(a.angle)
        dx, dy = b.x - a.x, b.y - a.y
        ahead += dx * math.cos(heading) + dy * math.sin(heading)
        aside += dx * math.sin(heading) - dy * math.cos(heading)
    speed = math.hypot(ahead, aside) / max(seconds, 1e-6)
    side = "left" if turn > 0 else "right"
    turning = f"turning {side} by about {round(abs(turn) / 10) * 10} degrees"
    pace = "slowly" if speed < 120 else "at a walk" if speed < 320 else "at a run"
    if speed < 25:
        return turning if abs(turn) >= 5 else STILL
    if abs(ahead) >= abs(aside):
        moving = f"moving {'forward' if ahead > 0 else 'backward'} {pace}"
    else:
        moving = f"sidestepping to the {'right' if aside > 0 else 'left'} {pace}"
    return f"{moving} while {turning}" if abs(turn) >= 5 else moving


def creature_words(names: list[str]) -> str:
    """List what the labels show, most often first, at most three kinds."""
    counts: dict[str, int] = {}
    for name in names:
        if name in CREATURES:
            counts[CREATURES[name]] = counts.get(CREATURES[name], 0) + 1
    top = sorted(counts, key=lambda name: (-counts[name], name))[:3]
    return f", with {' and '.join(top)} in view" if top else ""


def describe(walk: Walk, map_name: str, motion: str, names: list[str], depth: float) -> str:
    """Write a clip's caption from the state of the game."""
    place = "close walls" if depth < 12 else "a room" if depth < 35 else "a wide open space"
    return (
        f"First-person view in a computer game, map {map_name} of {walk.wad}, "
        f"{motion}, facing {place}{creature_words(names)}, "
        f"{shape_name(walk.height, walk.width)}."
    )
