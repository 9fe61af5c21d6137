"""One truth for all worlds: where the camera was, where everything was, what happened.

The schema is documented in ``README.md`` beside this file. It is stored with the sample as JSON,
so that evaluations of consistency, permanence and interaction need no simulator.
"""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

WORLDS = ("rooms", "doom", "physics", "craft", "framing", "tiny")
EVENTS = (
    "collision",
    "break",
    "bounce",
    "occluded",
    "reappears",
    "pickup",
    "place",
    "eat",
    "drink",
    "defeat",
)
DECIMALS = 3
# An object counts as hidden under the first share of visible pixels and as seen over the second.
HIDDEN_SHARE, SEEN_SHARE = 0.02, 0.3

Box = list[float]


@dataclass
class CameraTruth:
    """Where the camera was.

    kind: one word: orbit, pan, static, first-person, top-down and so on; ``cuts`` for several
        shots.
    words: the words that captions use.
    fov_degrees: (horizontal, vertical) of a perspective camera, or None for a top-down one.
    pixels_per_unit: scale of a top-down camera, or None.
    poses: per frame [x, y, z, heading, pitch, roll]: world units, degrees.
    """

    kind: str
    words: str
    fov_degrees: list[float] | None
    poses: list[list[float]]
    pixels_per_unit: float | None = None


@dataclass
class Track:
    """One object over the clip; every list has an entry per frame, None where it is not there.

    boxes: [x0, y0, x1, y1] in pixels of the whole object, not clipped by the frame (doom: of what
        can be seen of it).
    in_frame: share of that box inside the frame (doom: None, not known).
    visible: share of the pixels it would cover in the frame that nothing hides (doom: None).
    positions: [x, y, z] of its middle, world units.
    """

    id: str
    kind: str
    colour: str
    size: str
    subject: bool = False
    boxes: list[Box | None] = field(default_factory=list)
    in_frame: list[float | None] = field(default_factory=list)
    visible: list[float | None] = field(default_factory=list)
    positions: list[list[float] | None] = field(default_factory=list)

    def name(self) -> str:
        """Name the object as captions do."""
        return " ".join(word for word in (self.size, self.colour, self.kind) if word)

    def seen(self, index: int) -> bool:
        """Say whether a fair part of the object can be seen in a frame."""
        return self.boxes[index] is not None and self.shown(index) >= SEEN_SHARE**2

    def shown(self, index: int) -> float:
        """Return the share of an object that a frame shows; 1 where the world cannot tell."""
        inside, visible = self.in_frame[index], self.visible[index]
        return (1.0 if inside is None else inside) * (1.0 if visible is None else visible)


@dataclass
class Event:
    """Something that happened: the first frame that shows it, a kind of ``EVENTS``, object ids."""

    frame: int
    kind: str
    objects: list[str]


@dataclass
class ShotTruth:
    """A shot: frames ``start`` to ``stop`` (exclusive) and what its camera does."""

    start: int
    stop: int
    words: str


@dataclass
class Truth:
    """All that a simulator knows of a clip. ``attributes`` holds the phrases of its caption."""

    world: str
    style: str
    camera: CameraTruth
    objects: list[Track]
    events: list[Event]
    attributes: dict[str, str | list[str]]
    shots: list[ShotTruth]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types with numbers rounded to three decimals; checked."""
        values: dict[str, Any] = rounded(self)
        check_truth(values)
        return values


def rounded(value: Any) -> Any:
    """Return a JSON value, also of dataclasses, with its floats rounded to three decimals."""
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if is_dataclass(value):
        return {spec.name: rounded(getattr(value, spec.name)) for spec in fields(value)}
    return value


def check_truth(truth: dict[str, Any]) -> None:
    """Raise ValueError as ``key=value: rule. remedy.`` where a truth breaks the schema."""
    remedy = "Film the clip again with this version of the worlds."
    missing = [key for key in Truth.__dataclass_fields__ if key not in truth]
    if missing:
        raise ValueError(f"truth={missing[0]}: is missing. {remedy}")
    poses = truth["camera"]["poses"]
    num_frames = len(poses)
    rules: list[tuple[str, bool, str]] = [
        ("world", truth["world"] in WORLDS, f"must be one of {', '.join(WORLDS)}"),
        ("style", isinstance(truth["style"], str), "must be text"),
        ("poses", num_frames > 0 and all(is_numbers(p, 6) for p in poses), "needs 6 numbers each"),
        ("attributes", is_flat(truth["attributes"]), "must map text to text or lists of text"),
        ("shots", is_cover(truth["shots"], num_frames), "must cover the clip without gaps"),
        ("scale", has_scale(truth["camera"]), "the camera needs fov_degrees or pixels_per_unit"),
    ]
    ids = [track["id"] for track in truth["objects"]]
    rules.append(("objects", len(set(ids)) == len(ids), "ids must be unique"))
    for track in truth["objects"]:
        rules.append((f"objects.{track['id']}", is_track(track, num_frames), "breaks the schema"))
    for event in truth["events"]:
        right = event["kind"] in EVENTS and 0 <= event["frame"] < num_frames
        known = all(name in ids for name in event["objects"])
        rules.append((f"events.{event}", right and known, "must be known, in the clip, of objects"))
    for name, holds, rule in rules:
        if not holds:
            shown = repr(truth.get(name, ""))[:80]
            raise ValueError(f"{name}={shown}: {rule}. {remedy}")


def has_scale(camera: dict[str, Any]) -> bool:
    """Say whether a camera states how world units become pixels."""
    return is_numbers(camera["fov_degrees"], 2) or bool(camera["pixels_per_unit"])


def is_numbers(value: Any, length: int) -> bool:
    """Say whether a value is a list of so many finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    )


def is_share(value: Any) -> bool:
    """Say whether a value is None or in [0, 1]."""
    return value is None or (isinstance(value, int | float) and 0 <= value <= 1)


def is_track(track: dict[str, Any], num_frames: int) -> bool:
    """Say whether an object's lists have an entry per frame, each of its type."""
    lists = [track[key] for key in ("boxes", "in_frame", "visible", "positions")]
    return (
        all(len(values) == num_frames for values in lists)
        and all(box is None or is_numbers(box, 4) for box in track["boxes"])
        and all(is_share(value) for value in [*track["in_frame"], *track["visible"]])
        and all(point is None or is_numbers(point, 3) for point in track["positions"])
    )


def is_flat(attributes: Any) -> bool:
    """Say whether attributes map text to text or to lists of text."""
    return isinstance(attributes, dict) and all(
        isinstance(key, str)
        and (
            isinstance(value, str)
            or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        )
        for key, value in attributes.items()
    )


def is_cover(shots: Any, num_frames: int) -> bool:
    """Say whether shots follow each other from the first frame to the last."""
    edges = [0]
    for shot in shots:
        if shot["start"] != edges[-1] or shot["stop"] <= shot["start"]:
            return False
        edges.append(shot["stop"])
    return edges[-1] == num_frames


def hiding_events(track: Track, starts: list[int]) -> list[Event]:
    """Find where something comes to hide an object and where it can be seen again.

    A cut to another camera (``starts``) hides nothing, and leaving the frame is not hiding.
    """
    found: list[Event] = []
    was_seen = was_hidden = False
    for index in range(len(track.boxes)):
        if index in starts:
            was_seen = was_hidden = False
        visible, inside = track.visible[index], track.in_frame[index] or 0.0
        if visible is None or inside < SEEN_SHARE:
            was_seen = was_hidden = False
            continue
        if visible < HIDDEN_SHARE and was_seen:
            found.append(Event(index, "occluded", [track.id]))
            was_seen, was_hidden = False, True
        elif visible >= SEEN_SHARE and was_hidden:
            found.append(Event(index, "reappears", [track.id]))
            was_seen, was_hidden = True, False
        elif visible >= SEEN_SHARE:
            was_seen = True
    return found
