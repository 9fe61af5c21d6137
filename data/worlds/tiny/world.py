"""What a tiny world is: scenes at the splice, unrolled both ways; twins and crossed pairs of them.

A scene is drawn *at the splice*, the moment between two frames in the middle of the clip, and its
law is run from there to both ends. Two scenes that differ in one property alone therefore agree on
everything else at that moment, and their halves can be exchanged:

- a **crossed pair** is two lawful clips A and B, whose own joins AA and BB are lawful while AB and
  BA break the property;
- a **lawless twin** is A's first half with the second half of a scene whose property was drawn
  again. Drawn again from the same distribution given the rest, so every frame of a twin is
  distributed as that frame of a lawful clip is: what differs is how the halves go together.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np

from data.worlds.tiny.state import Array, Frames, State, splice

S = TypeVar("S")
NUM_FRAMES = 9
SPLICE = 5  # the first frame of the second half
TIMES: Array = np.arange(NUM_FRAMES, dtype=np.float64) - (
    SPLICE - 0.5
)  # of the frames, counted from the splice
ALL = "all"
TRIES = 10_000
# Grey levels by which means and deviations of two halves that shall be exchanged may differ.
MOST_UNLIKE = 24.0
Phrases = dict[str, str | list[str]]


def generator(name: str, seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return the random numbers of one clip, which no other (name, seed, index, stream) shares.

    Philox counts: the key is the world's name and the seed, and the clip's index and stream stand
    in the upper words of the counter, whose lower 128 bits a clip cannot use up.
    """
    key = [hash_of(name), seed]
    return np.random.Generator(np.random.Philox(counter=[0, 0, index, stream], key=key))


def hash_of(name: str) -> int:
    """Return 64 bits of a name, the same in every process (FNV-1a)."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value


@dataclass(frozen=True)
class Quadruplet:
    """Four clips of two scenes: aa and bb keep the property, ab and ba break it at ``splice``."""

    world: str
    prop: str
    splice: int
    states: dict[str, State]
    frames: dict[str, Frames]


class World(ABC, Generic[S]):
    """One world. A subclass says what a scene is, how it unrolls, looks and is read.

    laws: the properties that a lawful clip keeps across the splice, the names of what twins and
    pairs break. free: properties that no law binds, swapped as a control. size: height and width.
    finite: whether there are so few clips that a training meets them again.
    """

    name: str
    size: tuple[int, int]
    laws: tuple[str, ...]
    free: tuple[str, ...] = ()
    finite: bool = False

    @abstractmethod
    def scene(self, rng: np.random.Generator) -> S:
        """Draw a scene at the splice."""

    @abstractmethod
    def redraw(self, rng: np.random.Generator, scene: S, prop: str) -> S:
        """Draw a property of a scene again, from its distribution given the rest."""

    @abstractmethod
    def unroll(self, scene: S) -> State:
        """Run the law from the splice to both ends."""

    @abstractmethod
    def render(self, state: State) -> Frames:
        """Draw a state, each frame from its own row: (F, H, W, 3)."""

    @abstractmethod
    def read(self, frames: Frames) -> State:
        """Find the state in pixels alone; what cannot be seen is not there."""

    @abstractmethod
    def phrases(self, state: State) -> Phrases:
        """Return the facts of a clip that its captions state, word for word."""

    @abstractmethod
    def caption(self, state: State, dense: bool = True) -> str:
        """Describe a clip in full, or in a few words."""

    def scenes(self) -> list[tuple[S, float]]:
        """Return every scene of a finite world and its probability."""
        raise NotImplementedError(f"{self.name} draws from ranges")

    def changes(self, prop: str) -> tuple[str, ...]:
        """Return the fields of a scene that a property may change."""
        return (prop,)

    def matters(self, scene: S, prop: str) -> bool:
        """Say whether a property of this scene can be seen."""
        return True

    def apart(self, a: S, b: S, prop: str) -> bool:
        """Say whether two scenes differ enough in a property for their pair to be told apart."""
        return any(getattr(a, name) != getattr(b, name) for name in self.changes(prop))

    def check(self, prop: str) -> None:
        """Raise ValueError unless it is a property of this world."""
        known = (*self.laws, *self.free)
        if prop not in known:
            raise ValueError(f"property={prop}: is none of {self.name}. Use {', '.join(known)}.")

    def draw(self, rng: np.random.Generator, lawless: str = "") -> State:
        """Draw a clip. ``lawless`` names the one law that is off, or ``all``.

        Raises ValueError where the world has no such law.
        """
        scene = self.scene(rng)
        if not lawless:
            return self.unroll(scene)
        other = scene
        for prop in self.laws if lawless == ALL else (lawless,):
            self.check(prop)
            other = self.redraw(rng, other, prop)
        return splice(self.unroll(scene), self.unroll(other), SPLICE)

    def crossed(self, rng: np.random.Generator, prop: str) -> Quadruplet:
        """Draw two scenes that differ in a property alone, and join their halves in all four ways.

        Raises ValueError where the world has no such property.
        """
        self.check(prop)
        for _ in range(TRIES):
            a = self.scene(rng)
            if not self.matters(a, prop):
                continue
            b = self.redraw(rng, a, prop)
            if not self.apart(a, b, prop) or not self.matters(b, prop):
                continue
            one, other = (self.render(self.unroll(scene)) for scene in (a, b))
            if not unlike(one, other):
                return self.cross(a, b, prop)
        raise AssertionError(f"no pair of {self.name} found for {prop}")

    def cross(self, a: S, b: S, prop: str) -> Quadruplet:
        """Join the halves of two scenes in all four ways.

        Raises ValueError where they differ in more than the property, not at all, or so much in
        the statistics of their halves that a likelihood would tell which picture is easier.
        """
        changed = differing(a, b)
        if not changed or not set(changed) <= set(self.changes(prop)):
            raise ValueError(
                f"property={prop}: scenes of a pair must differ in {self.changes(prop)} alone, but "
                f"differ in {changed}. Draw the second by redraw(rng, first, {prop!r})."
            )
        whole = {"a": self.unroll(a), "b": self.unroll(b)}
        drawn = {name: self.render(state) for name, state in whole.items()}
        for what, one, other in unlike(drawn["a"], drawn["b"]):
            raise ValueError(
                f"property={prop}: the {what} differs, {one:.0f} and {other:.0f}, by more than "
                f"{MOST_UNLIKE:.0f} grey levels, so that a likelihood would tell which picture is "
                "the easier. Cross scenes of equal contrast."
            )
        names = ("aa", "ab", "ba", "bb")
        return Quadruplet(
            self.name,
            prop,
            SPLICE,
            {name: splice(whole[name[0]], whole[name[1]], SPLICE) for name in names},
            {
                name: np.concatenate([drawn[name[0]][:SPLICE], drawn[name[1]][SPLICE:]])
                for name in names
            },
        )


def differing(a: Any, b: Any) -> list[str]:
    """Return the fields in which two scenes differ."""
    return [spec.name for spec in fields(a) if getattr(a, spec.name) != getattr(b, spec.name)]


def unlike(a: Frames, b: Frames) -> list[tuple[str, float, float]]:
    """Return what of two clips' halves differs by too much, with both values in grey levels."""
    found = []
    for name, part in (("first", slice(None, SPLICE)), ("second", slice(SPLICE, None))):
        for what, measure in (("mean", np.mean), ("deviation", np.std)):
            one, other = float(measure(a[part])), float(measure(b[part]))
            if abs(one - other) > MOST_UNLIKE:
                found.append((f"{name} halves' {what}", one, other))
    return found


def listed(phrases: Phrases, key: str) -> list[str]:
    """Return the phrases of a key, none where there is none."""
    value = phrases.get(key, [])
    return [value] if isinstance(value, str) else value


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number; quicker than Generator.uniform."""
    return low + (high - low) * float(rng.random())


def choose(rng: np.random.Generator, count: int) -> int:
    """Draw an index below ``count``; quicker than Generator.integers."""
    return int(rng.random() * count)


def coin(rng: np.random.Generator, share: float = 0.5) -> bool:
    """Draw a truth that holds with a share."""
    return bool(rng.random() < share)
