"""A two-dimensional world of tiles, seen from above: the game crafter, played by a small policy.

The picture is drawn here from the game's own textures and state, so that a clip has any size, the
window ends inside tiles where the size is off their grid, and figures glide between tiles. Frame
``n`` shows the state after ``n / frames_per_step`` steps.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from crafter import constants
from crafter.engine import Textures

from data.worlds.clip import Clip, check_size
from data.worlds.craft.play import AREA, Game, Moment, Thing, play
from data.worlds.craft.words import describe
from data.worlds.render.view import share_inside
from data.worlds.truth import CameraTruth, Event, ShotTruth, Track, Truth

STYLE = "pixel game"
TILE_SIZES = (10, 12, 16)
NIGHT = np.array([0, 16, 64], np.float32)
KIND_NAMES = {"player": "figure", "plant": "sapling", "fence": "fence"}


@lru_cache(maxsize=1)
def textures() -> Textures:
    """Return the game's pictures of tiles and figures."""
    return Textures(constants.root / "assets")


@lru_cache(maxsize=512)
def sprite(name: str, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture's colours (tile, tile, 3) and where it is solid (tile, tile)."""
    image = textures().get(name, (tile, tile)).transpose(1, 0, 2)
    solid = image[..., 3] > 127 if image.shape[-1] == 4 else np.ones(image.shape[:2], bool)
    return image[..., :3], solid


class Painter:
    """Draws moments of a game into a window that follows the player."""

    def __init__(self, game: Game, height: int, width: int, tile: int) -> None:
        self.game, self.height, self.width, self.tile = game, height, width, tile
        self.tracks: dict[str, Track] = {}
        self.num_frames = 0
        self.poses: list[list[float]] = []

    def paint(self, before: Moment, after: Moment, phase: float) -> np.ndarray:
        """Draw the way from one moment to the next at ``phase`` in [0, 1) and note the truth."""
        tile = self.tile
        later = {thing.id: thing for thing in after.things}
        spots = {thing.id: self.spot(thing, later.get(thing.id), phase) for thing in before.things}
        player = next(thing for thing in before.things if thing.kind == "player")
        left = spots[player.id][0] + tile // 2 - self.width // 2
        top = spots[player.id][1] + tile // 2 - self.height // 2
        canvas = self.ground(before.materials, left, top)
        owner = np.zeros((self.height, self.width), np.int32)
        drawn = []
        for number, thing in enumerate(before.things, 1):
            x, y = spots[thing.id]
            picture, solid = sprite(thing.texture, tile)
            if self.draw(canvas, owner, number, picture, solid, x - left, y - top):
                drawn.append((number, thing, solid, x - left, y - top))
        for number, thing, solid, x, y in drawn:
            self.note(thing, owner == number, solid, (x, y), (left, top))
        for track in self.tracks.values():
            fill(track, self.num_frames + 1)
        # The middle of the window in tiles; exact, because windows lie on whole pixels.
        middle = [(left + self.width / 2) / tile, (top + self.height / 2) / tile]
        self.poses.append([*middle, 0.0, 0.0, 0.0, 0.0])
        self.num_frames += 1
        return night(canvas, before.daylight)

    def spot(self, thing: Thing, later: Thing | None, phase: float) -> tuple[int, int]:
        """Return the pixel of the map where a thing's tile starts, gliding to its next tile."""
        (x, y), (u, v) = thing.tile, later.tile if later else thing.tile
        return (
            round((x + (u - x) * phase) * self.tile),
            round((y + (v - y) * phase) * self.tile),
        )

    def ground(self, materials: np.ndarray, left: int, top: int) -> np.ndarray:
        """Draw the tiles of a window, whole ones first and cut to its pixels after."""
        tile = self.tile
        x0, y0 = left // tile, top // tile
        columns, rows = -(-(left + self.width) // tile) - x0, -(-(top + self.height) // tile) - y0
        image = np.zeros((rows * tile, columns * tile, 3), np.uint8)
        for row in range(rows):
            for column in range(columns):
                x, y = x0 + column, y0 + row
                if 0 <= x < AREA[0] and 0 <= y < AREA[1]:
                    picture = sprite(self.game.materials[int(materials[x, y])], tile)[0]
                    area = (
                        slice(row * tile, (row + 1) * tile),
                        slice(column * tile, (column + 1) * tile),
                    )
                    image[area] = picture
        down, across = top - y0 * tile, left - x0 * tile
        return image[down : down + self.height, across : across + self.width].copy()

    def draw(
        self,
        canvas: np.ndarray,
        owner: np.ndarray,
        number: int,
        picture: np.ndarray,
        solid: np.ndarray,
        x: int,
        y: int,
    ) -> bool:
        """Draw a figure at a pixel, cut at the frame; say whether any of it is inside."""
        tile = self.tile
        x0, y0, x1, y1 = max(0, x), max(0, y), min(self.width, x + tile), min(self.height, y + tile)
        if x0 >= x1 or y0 >= y1:
            return False
        mask = solid[y0 - y : y1 - y, x0 - x : x1 - x]
        canvas[y0:y1, x0:x1][mask] = picture[y0 - y : y1 - y, x0 - x : x1 - x][mask]
        owner[y0:y1, x0:x1][mask] = number
        return bool(mask.any())

    def note(
        self,
        thing: Thing,
        shown: np.ndarray,
        solid: np.ndarray,
        at: tuple[int, int],
        window: tuple[int, int],
    ) -> None:
        """Add a frame to a thing's track."""
        if thing.id not in self.tracks:
            kind = KIND_NAMES.get(thing.kind, thing.kind)
            small = "small" if thing.kind == "player" else ""
            self.tracks[thing.id] = Track(thing.id, kind, "", small, thing.kind == "player")
        track = self.tracks[thing.id]
        fill(track, self.num_frames)
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        x, y = at
        box = [x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1]
        inside = solid[max(0, -y) : self.height - y, max(0, -x) : self.width - x]
        track.boxes.append([float(v) for v in box])
        track.in_frame.append(share_inside(track.boxes[-1] or [], self.height, self.width))
        track.visible.append(float(shown.sum() / max(1, inside.sum())))
        middle = [(a + b) / self.tile + 0.5 for a, b in zip(at, window, strict=True)]
        track.positions.append([*middle, 0.0])


def fill(track: Track, length: int) -> None:
    """Say that a track was not in the window up to a number of frames."""
    while len(track.boxes) < length:
        track.boxes.append(None)
        track.in_frame.append(None)
        track.visible.append(None)
        track.positions.append(None)


def night(canvas: np.ndarray, daylight: float) -> np.ndarray:
    """Darken a picture towards a grey blue as the daylight of the game falls."""
    image = canvas.astype(np.float32)
    grey = image.mean(-1, keepdims=True)
    dark = 0.5 * (0.4 * image + 0.6 * grey) + 0.5 * NIGHT
    return (daylight * image + (1 - daylight) * dark).astype(np.uint8)


def film(world_seed: int, plan: list[tuple[int, int, int, float]]) -> Iterator[Clip]:
    """Play one world and film a clip per (num_frames, height, width, fps) of the plan.

    Frames are uint8 (num_frames, height, width, 3). The same world seed and plan give the same
    clips; worlds without any goal in reach give fewer.
    """
    for num_frames, height, width, _ in plan:
        check_size(num_frames, height, width)
    game = Game(world_seed)
    for number, (num_frames, height, width, fps) in enumerate(plan):
        rng = np.random.default_rng([0xC4AF7, world_seed, number])
        clip = shoot(game, rng, num_frames, height, width, fps)
        if clip is not None:
            clip.source = f"craft/seed-{world_seed:06d}"
            clip.key = f"craft-{world_seed:06d}-{number:03d}"
            yield clip


def shoot(
    game: Game, rng: np.random.Generator, num_frames: int, height: int, width: int, fps: float
) -> Clip | None:
    """Film one clip, or None if nothing can be done near any place."""
    tile = int(rng.choice([t for t in TILE_SIZES if min(height, width) >= 4 * t] or TILE_SIZES[:1]))
    per_step = 2 if num_frames <= 5 else int(rng.integers(2, 4))
    # Far enough from the rim of the map that the window does not see beyond it at the start.
    margin = max(height, width) // tile // 2 + 3
    played = play(game, rng, -(-(num_frames - 1) // per_step) + 1, margin)
    if played is None:
        return None
    moments, events, words = played
    painter = Painter(game, height, width, tile)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        step, part = divmod(index, per_step)
        frames[index] = painter.paint(moments[step], moments[step + 1], part / per_step)
    known = set(painter.tracks)
    told = [
        (Event(e.frame * per_step, e.kind, [n for n in e.objects if n in known]), text)
        for e, text in zip(events, words, strict=True)
        if e.frame * per_step < num_frames
    ]
    for track in painter.tracks.values():
        fill(track, num_frames)
    tracks = list(painter.tracks.values())
    moment = moments[0]
    attributes, dense, short = describe(
        tracks,
        [text for _, text in told],
        window_materials(game, moment, painter.poses[0], height, width, tile),
        moment.daylight,
        height,
        width,
        rng,
    )
    truth = Truth(
        world="craft",
        style=STYLE,
        camera=CameraTruth("top-down", str(attributes["camera"]), None, painter.poses, float(tile)),
        objects=tracks,
        events=[event for event, _ in told],
        attributes=attributes,
        shots=[ShotTruth(0, num_frames, str(attributes["camera"]))],
    )
    return Clip(frames, fps, dense, "", "", short, [], truth.to_json())


def window_materials(
    game: Game, moment: Moment, pose: list[float], height: int, width: int, tile: int
) -> dict[str, float]:
    """Return the share of the window's tiles that each material covers, the largest first."""
    x, y = pose[:2]
    half_x, half_y = width / tile / 2, height / tile / 2
    x0, x1 = max(0, int(x - half_x)), int(np.ceil(x + half_x))
    y0, y1 = max(0, int(y - half_y)), int(np.ceil(y + half_y))
    seen = moment.materials[x0:x1, y0:y1]
    numbers, counts = np.unique(seen, return_counts=True)
    shares = {game.materials[int(n)]: c / seen.size for n, c in zip(numbers, counts, strict=True)}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
