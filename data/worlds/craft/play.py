"""A small player of crafter: it looks for something near, walks there and uses it.

The game is driven without its balancing of creatures, whose choice among a chunk's creatures
depends on memory addresses; everything else is decided by the world's seed.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import crafter
import numpy as np
from crafter.objects import Cow, Skeleton, Zombie

from data.worlds.truth import Event

AREA = (64, 64)
MOVES = {(-1, 0): "move_left", (1, 0): "move_right", (0, -1): "move_up", (0, 1): "move_down"}
WALKABLE = ("grass", "sand", "path")
REACH = 7  # tiles: goals farther than this are not walked to within a clip
# What the player has when a clip starts, so that everything nearby can be used.
KIT = {"wood": 5, "stone": 5, "sapling": 2, "wood_pickaxe": 1, "stone_pickaxe": 1, "iron_sword": 1}
GOALS = ("tree", "water", "stone", "coal", "iron", "cow", "zombie", "place_stone", "place_table")
CREATURES = {"cow": Cow, "zombie": Zombie, "skeleton": Skeleton}

COLLECTED = ("wood", "stone", "coal", "iron", "sapling")

Tile = tuple[int, int]


@dataclass
class Thing:
    """Something on the map at one moment: a stable id, what it is, its tile and its texture."""

    id: str
    kind: str
    tile: Tile
    texture: str


@dataclass
class Moment:
    """The state of the game after a step: the material of every tile and what stands on it."""

    materials: np.ndarray  # (64, 64) of material numbers
    things: list[Thing]
    facing: Tile
    daylight: float


class Game:
    """One crafter world, kept for several clips."""

    def __init__(self, seed: int) -> None:
        self.env = crafter.Env(area=AREA, view=(9, 9), size=(36, 36), seed=seed, length=None)
        self.env.reset()
        self.world: Any = self.env._world
        self.player: Any = self.env._player
        self.materials = {number: name for name, number in self.world._mat_ids.items() if name}
        self.names: dict[int, str] = {}

    def material(self, tile: Tile) -> str:
        """Return what a tile is made of; the rim of the map is nothing."""
        return self.world[tile][0] or ""

    def free(self, tile: Tile) -> bool:
        """Say whether the player could stand on a tile."""
        material, thing = self.world[tile]
        return thing is None and material in WALKABLE

    def goals(self, name: str) -> list[Tile]:
        """Return the tiles at which a goal could be met, in a fixed order."""
        if name in CREATURES:
            kind = CREATURES[name]
            return [tuple(o.pos.tolist()) for o in self.world.objects if isinstance(o, kind)]
        wanted = "grass" if name.startswith("place_") else name
        number = self.world._mat_ids[wanted]
        return [(int(x), int(y)) for x, y in np.argwhere(self.world._mat_map == number)]

    def distances(self, goal: Tile) -> dict[Tile, int]:
        """Return the walking distance of free tiles near a goal to a tile beside it."""
        found: dict[Tile, int] = {}
        queue: deque[tuple[Tile, int]] = deque([(goal, -1)])
        while queue:
            tile, steps = queue.popleft()
            for dx, dy in MOVES:
                near = tile[0] + dx, tile[1] + dy
                own = near == tuple(self.player.pos.tolist())
                if near not in found and steps < REACH and (self.free(near) or own):
                    found[near] = steps + 1
                    queue.append((near, steps + 1))
        return found

    def start(self, rng: np.random.Generator, goal_name: str, margin: int) -> Tile | None:
        """Equip the player and put it a few steps from a goal; return the goal, if there is one."""
        for name, info in crafter.constants.items.items():
            self.player.inventory[name] = KIT.get(name, info["initial"])
        self.player.sleeping = False
        goals = self.goals(goal_name)
        for _ in range(12 if goals else 0):
            goal = goals[int(rng.integers(len(goals)))]
            nearby = self.distances(goal)
            wanted = int(rng.integers(1, 5))
            places = sorted(tile for tile, steps in nearby.items() if steps == wanted)
            inside = [t for t in places if all(margin <= v < AREA[0] - margin for v in t)]
            if inside:
                place = inside[int(rng.integers(len(inside)))]
                if place != tuple(self.player.pos.tolist()):
                    self.world.move(self.player, np.array(place))
                return goal
        return None

    def act(self, goal_name: str, goal: Tile) -> str:
        """Choose the action that brings the player nearer to a goal, or uses it."""
        here = tuple(self.player.pos.tolist())
        offset = goal[0] - here[0], goal[1] - here[1]
        if offset in MOVES:
            if tuple(self.player.facing) != offset:
                return MOVES[offset]
            return goal_name if goal_name.startswith("place_") else "do"
        found = self.distances(goal)
        steps = {
            move: found.get((here[0] + move[0], here[1] + move[1]), REACH + 9) for move in MOVES
        }
        best = min(steps, key=lambda move: (steps[move], move))
        return MOVES[best] if steps[best] <= REACH else "noop"

    def step(self, action: str) -> list[tuple[str, str]]:
        """Play one step; return what the inventory and the map say happened as (kind, what)."""
        before = dict(self.player.inventory)
        done = dict(self.player.achievements)
        self.env._step += 1
        self.env._update_time()
        self.player.action = action
        for thing in self.world.objects:
            if self.player.distance(thing) < 18:
                thing.update()
        gained = {n: c - before[n] for n, c in self.player.inventory.items()}
        new = {n for n, c in self.player.achievements.items() if c > done[n]}
        found = [("pickup", name) for name in COLLECTED if gained[name] > 0]
        if "eat_cow" in new:
            found.append(("eat", "cow"))
        if "collect_drink" in new:
            found.append(("drink", "water"))
        found += [("defeat", kind) for kind in ("zombie", "skeleton") if f"defeat_{kind}" in new]
        found += [("place", n[6:]) for n in sorted(new) if n.startswith("place_")]
        return found

    def name_of(self, thing: Any) -> str:
        """Return a stable id of an object: its kind and its number on the list of the world."""
        number = int(self.world._obj_map[tuple(thing.pos)])
        return f"{type(thing).__name__.lower()}-{number}"

    def moment(self) -> Moment:
        """Return the state as it is now."""
        things = [
            Thing(
                self.name_of(thing),
                type(thing).__name__.lower(),
                tuple(thing.pos.tolist()),
                thing.texture,
            )
            for thing in self.world.objects
        ]
        return Moment(
            self.world._mat_map.copy(),
            things,
            tuple(self.player.facing),
            float(self.world.daylight),
        )


def play(
    game: Game, rng: np.random.Generator, num_steps: int, margin: int
) -> tuple[list[Moment], list[Event], list[str]] | None:
    """Play some steps towards one goal after another.

    Returns the state before every step and after the last, the events (their frame is a step
    number) and a phrase per event; None if the world offers no goal ``margin`` tiles from its rim.
    """
    game.env._step = int(rng.integers(0, 300))
    game.env._update_time()
    order = rng.permutation(list(GOALS)).tolist()
    goal = None
    for goal_name in order:
        goal = game.start(rng, goal_name, margin)
        if goal is not None:
            break
    if goal is None:
        return None
    moments = [game.moment()]
    events: list[Event] = []
    phrases: list[str] = []
    for step in range(num_steps):
        if goal_name in CREATURES:
            here = np.array(game.player.pos)
            living = game.goals(goal_name)
            goal = min(living, key=lambda t: (abs(here - t).sum(), t)) if living else goal
        target = tuple((np.array(game.player.pos) + game.player.facing).tolist())
        occupant = game.world[target][1]
        touched = [game.name_of(game.player)]
        if occupant is not None:
            touched.append(game.name_of(occupant))
        for kind, what in game.step(game.act(goal_name, goal)):
            events.append(
                Event(step + 1, kind, touched if kind in ("eat", "defeat") else touched[:1])
            )
            phrases.append(event_words(kind, what))
        moments.append(game.moment())
        if phrases and goal_name != "water":
            # Done: go on to the next thing nearby, if there is any.
            near = [n for n in order if n not in CREATURES and not n.startswith("place_")]
            for name in near:
                tiles = [
                    t for t in game.goals(name) if abs(np.array(t) - game.player.pos).sum() < 5
                ]
                if tiles:
                    goal_name, goal = name, tiles[int(rng.integers(len(tiles)))]
                    break
    return moments, events, phrases


def event_words(kind: str, what: str) -> str:
    """Say what the player did."""
    if kind == "pickup":
        return {"wood": "chops a tree", "sapling": "picks a sapling"}.get(what, f"mines {what}")
    if kind == "place":
        return "plants a sapling" if what == "plant" else f"places a {what}"
    verb = {"eat": "eats", "drink": "drinks", "defeat": "defeats"}[kind]
    return f"{verb} {'the ' if kind != 'drink' else ''}{what}"
