"""An agent among walls, with keys and a door, driven by one word a step: a digital world.

A step moves the agent by a tile unless a wall, the edge or a shut door is there. A key that it
steps on is counted in the row above the room. A shut door opens, for one key, when the agent steps
against it. All parts are drawn independently, so that one can be drawn again given the rest.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.worlds.tiny.look import cells_of
from data.worlds.tiny.paint import BLACK, BROWN, GREY, NAMES, TABLE, TILE, WHITE, tiled
from data.worlds.tiny.state import (
    COLOUR,
    HEIGHT,
    SEEN,
    THERE,
    WIDTH,
    Frames,
    State,
    X,
    Y,
    blank,
    make_state,
)
from data.worlds.tiny.world import NUM_FRAMES, SPLICE, Phrases, World, choose, coin, listed

SIDE = 5  # tiles of a row; the first row is the counter
ROOM = range(SIDE, SIDE * SIDE)
WALLS = 4
MOST_KEYS = 2
KEY_SHARE = 0.8
WAYS = {"left": -1, "right": 1, "up": -SIDE, "down": SIDE, "waits": 0}
WORDS = tuple(WAYS)
RED, YELLOW = NAMES.index("red"), NAMES.index("yellow")
FLOOR_ICON, WALL_ICON, KEY_ICON, DOOR_ICON, OPEN_ICON, AGENT_ICON, IN_DOOR_ICON = range(7)
UNLIT_ICON, LIT_ICON = 7, 8
KINDS = ("wall",) * WALLS + ("key", "door", "agent") + ("count",) * MOST_KEYS
KEY, DOOR, AGENT, COUNT = WALLS, WALLS + 1, WALLS + 2, WALLS + 3
SHUT, OPEN = BROWN, WHITE  # the door's colour
LIGHT = 0.15
# What an icon shows: a kind of body and its colour.
MEANING = {
    WALL_ICON: ("wall", GREY),
    KEY_ICON: ("key", YELLOW),
    DOOR_ICON: ("door", SHUT),
    OPEN_ICON: ("door", OPEN),
    AGENT_ICON: ("agent", RED),
    IN_DOOR_ICON: ("agent", RED),
    LIT_ICON: ("count", YELLOW),
}


def icons() -> NDArray[np.uint8]:
    """Return the pictures of all tiles, (9, 4, 4, 3)."""
    found = np.empty((9, TILE, TILE, 3), np.uint8)
    found[:] = (38, 38, 46)
    found[WALL_ICON] = TABLE[GREY]
    found[WALL_ICON, 0] = (158, 158, 158)
    found[KEY_ICON, 1:3, 1:3] = TABLE[YELLOW]
    found[DOOR_ICON] = TABLE[BROWN]
    found[DOOR_ICON, 2, 2] = TABLE[YELLOW]
    for icon in (OPEN_ICON, IN_DOOR_ICON):
        found[icon, :, [0, 3]] = TABLE[BROWN]
    for icon in (AGENT_ICON, IN_DOOR_ICON):
        found[icon, :, 1:3] = TABLE[RED]
        found[icon, 0, 1:3] = TABLE[WHITE]
    found[AGENT_ICON, 1:3] = TABLE[RED]
    found[UNLIT_ICON:] = TABLE[BLACK]
    found[LIT_ICON, 1:3, 1:3] = TABLE[YELLOW]
    return found


ICONS = icons()


@dataclass(frozen=True)
class Scene:
    """A room and eight words. ``keys`` is what the agent has at first."""

    walls: tuple[int, ...]
    key: int
    there: bool
    door: int
    start: int
    keys: int
    words: tuple[str, ...]


class Tiles(World[Scene]):
    """The room of tiles."""

    name = "tiles"
    size = (SIDE * TILE, SIDE * TILE)
    laws = ("counter", "door", "wall")

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw a room and words."""
        order = rng.permutation(SIDE * SIDE - SIDE)[: WALLS + 3] + SIDE
        *walls, key, door, start = order.tolist()
        words = tuple(WORDS[n] for n in (rng.random(NUM_FRAMES - 1) * len(WORDS)).astype(int))
        there, keys = coin(rng, KEY_SHARE), choose(rng, MOST_KEYS)
        return Scene(tuple(sorted(walls)), key, there, door, start, keys, words)

    def redraw(self, rng: np.random.Generator, scene: Scene, prop: str) -> Scene:
        """Draw again whether there is a key, what the agent has at first, or where it starts."""
        if prop == "counter":
            return replace(scene, there=coin(rng, KEY_SHARE))
        if prop == "door":
            return replace(scene, keys=choose(rng, MOST_KEYS))
        taken = {*scene.walls, scene.key, scene.door}
        free = [cell for cell in ROOM if cell not in taken]
        return replace(scene, start=free[choose(rng, len(free))])

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the field of a scene that a property may change."""
        return ({"counter": "there", "door": "keys", "wall": "start"}[prop],)

    def apart(self, a: Scene, b: Scene, prop: str) -> bool:
        """Ask that both rooms agree at the splice in all but the count, the door or the place."""
        if a == b:
            return False
        one, other = (self.unroll(scene).bodies[SPLICE - 1 : SPLICE + 1] for scene in (a, b))
        unlike = (one != other).any((0, 2))  # (N,)
        if prop == "counter":
            return bool(unlike[COUNT:].any() and not unlike[:COUNT].any())
        if prop == "door":
            return bool(unlike[DOOR] and not np.delete(unlike, DOOR).any())
        if np.delete(unlike, AGENT).any():
            return False
        return behind_wall(a, *(bodies[0, AGENT, [X, Y]] for bodies in (one, other)))

    def unroll(self, scene: Scene) -> State:
        """Play the words from the first frame on."""
        bodies = blank(NUM_FRAMES, len(KINDS))
        bodies[..., [WIDTH, HEIGHT]] = TILE
        bodies[:, : AGENT + 1, [THERE, SEEN]] = 1.0
        bodies[:, :WALLS, COLOUR] = GREY
        cells = np.array([*scene.walls, scene.key, scene.door, scene.start, *range(MOST_KEYS)])
        bodies[..., X], bodies[..., Y] = (cells % SIDE + 0.5) * TILE, (cells // SIDE + 0.5) * TILE
        agent, keys, there, is_open = scene.start, scene.keys, scene.there, False
        bodies[:, [KEY, *range(COUNT, COUNT + MOST_KEYS)], COLOUR] = YELLOW
        bodies[:, AGENT, COLOUR] = RED
        for frame in range(NUM_FRAMES):
            if frame:
                agent, keys, there, is_open = step(
                    scene, scene.words[frame - 1], agent, keys, there, is_open
                )
            place = (agent % SIDE + 0.5) * TILE, (agent // SIDE + 0.5) * TILE
            bodies[frame, AGENT, [X, Y]] = place
            bodies[frame, KEY, [THERE, SEEN]] = there
            bodies[frame, DOOR, COLOUR] = OPEN if is_open else SHUT
            bodies[frame, DOOR, SEEN] = 0.0 if agent == scene.door else 1.0
            for number in range(MOST_KEYS):
                bodies[frame, COUNT + number, [THERE, SEEN]] = number < keys
        return make_state(KINDS, bodies, LIGHT, words=("", *scene.words))

    def render(self, state: State) -> Frames:
        """Draw the tiles."""
        bodies, frames = state.bodies, np.arange(len(state.bodies))
        cells = np.zeros((len(bodies), SIDE * SIDE), int)
        cells[:, :SIDE] = UNLIT_ICON
        place = (bodies[..., Y] // TILE * SIDE + bodies[..., X] // TILE).astype(int)
        for number in range(WALLS):
            cells[frames, place[:, number]] = WALL_ICON
        cells[frames, place[:, KEY]] = np.where(bodies[:, KEY, THERE] > 0, KEY_ICON, FLOOR_ICON)
        is_open = bodies[:, DOOR, COLOUR] == OPEN
        cells[frames, place[:, DOOR]] = np.where(is_open, OPEN_ICON, DOOR_ICON)
        inside = place[:, AGENT] == place[:, DOOR]
        cells[frames, place[:, AGENT]] = np.where(inside, IN_DOOR_ICON, AGENT_ICON)
        for number in range(MOST_KEYS):
            lit = bodies[:, COUNT + number, THERE] > 0
            cells[:, number] = np.where(lit, LIT_ICON, UNLIT_ICON)
        return tiled(ICONS, cells.reshape(-1, SIDE, SIDE))

    def read(self, frames: Frames) -> State:
        """Read every tile as the icon that it is most like."""
        cells = cells_of(frames, ICONS).reshape(len(frames), -1)
        num_tiles = SIDE * SIDE
        kinds = ("wall", "key", "door", "agent", "count")
        bodies = blank(len(frames), num_tiles * len(kinds))
        bodies[..., [WIDTH, HEIGHT]] = TILE
        place = np.tile(np.arange(num_tiles), len(kinds))
        bodies[..., X], bodies[..., Y] = (place % SIDE + 0.5) * TILE, (place // SIDE + 0.5) * TILE
        for icon, (kind, colour) in MEANING.items():
            first = kinds.index(kind) * num_tiles
            part = bodies[:, first : first + num_tiles]
            found = cells == icon
            part[..., COLOUR] = np.where(found, colour, part[..., COLOUR])
            part[..., [THERE, SEEN]] = np.maximum(part[..., [THERE, SEEN]], found[..., None])
        return make_state(
            tuple(kind for kind in kinds for _ in range(num_tiles)), bodies, LIGHT, np.nan
        )

    def phrases(self, state: State) -> Phrases:
        """Say what is in the room, and what comes of the words."""
        counted = state.of("count")[..., THERE].sum(1)
        door = state.of("door")[:, 0, COLOUR]
        events = ["takes a key"] if (np.diff(counted) > 0).any() else []
        events += ["opens the door"] if door[-1] == OPEN else []
        held = ("no key", "one key", "two keys")
        return {
            "objects": ["red agent", "brown door", "walls"],
            "held": [held[int(counted[0])], held[int(counted[-1])]],
            "events": events or ["changes nothing"],
            "steps": sorted(set(state.words[1:])),
        }

    def caption(self, state: State, dense: bool = True) -> str:
        """Give the words one by one, and what comes of them."""
        found = self.phrases(state)
        first, last = listed(found, "held")
        deeds = " and ".join(listed(found, "events"))
        if not dense:
            return f"a red agent with {first} among walls"
        return (
            f"A red agent with {first} is among walls and a brown door. It goes: "
            f"{', '.join(state.words[1:])}. On its way it {deeds}, and has {last} then."
        )


def step(
    scene: Scene, word: str, agent: int, keys: int, there: bool, is_open: bool
) -> tuple[int, int, bool, bool]:
    """Return agent, keys, whether the key lies there and whether the door is open, a word later."""
    ahead = agent + WAYS[word]
    blocked = ahead not in ROOM or ahead in scene.walls
    if blocked or (WAYS[word] in (-1, 1) and ahead // SIDE != agent // SIDE):
        return agent, keys, there, is_open
    if ahead == scene.door and not is_open:
        return agent, keys - (keys > 0), there, keys > 0
    taken = there and ahead == scene.key
    return ahead, keys + taken, there and not taken, is_open


def behind_wall(scene: Scene, one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Say whether two places stand in a line with nothing but walls between, at least one."""
    (x, y), (u, v) = (one // TILE).astype(int).tolist(), (other // TILE).astype(int).tolist()
    if (x == u) == (y == v):
        return False
    a, b = sorted((y * SIDE + x, v * SIDE + u))
    between = range(a + (SIDE if x == u else 1), b, SIDE if x == u else 1)
    return len(between) > 0 and all(cell in scene.walls for cell in between)
