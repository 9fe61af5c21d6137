"""A film in one pass: decoded once, watched for cuts, handed out as clips of 1 + 4k frames.

Frames wait only until it is known where their shot ends, so memory holds one clip, however long the
film. Every frame is accounted for: used in a clip, or left out for a named reason.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from typing import Any

import av

from data.config import IngestConfig, Shots
from data.dataset.tokens import cell_of, tokens
from data.media.h264 import Scaler
from data.media.moving import MovingPicture
from data.media.prepare import SizeChanged, prepared
from data.media.probe import Facts, decoded, fit_size
from data.media.reject import Reject, rejecting
from data.media.shots import LOOK_SIDE, Look, ShotFinder

# Why frames of a film are in no clip; filters add their own names.
SHOT_END, TOO_MANY, DAMAGE = "end_of_shot", "max_clips_per_source", "before_damage"
TIME_TOLERANCE_SECONDS = 1e-6
# Bounds, in groups of cell[0] frames, of clips that run as long as token_cap allows: a larger film
# is scaled down before its clips are shorter, and of a tiny one no clip fills the memory.
FEWEST_GROUPS, MOST_GROUPS = 4, 256


@dataclass
class Account:
    """What became of a film's frames (counted at its constant rate).

    pixels: of each of the film's frames, at its own size.
    dropped: frames by the reason for which they are in no clip.
    shots: the first frame of every shot; scenes: each shot's scene.
    """

    file: str
    licence: str = "unknown"
    fps: float = 0.0
    pixels: int = 0
    num_frames: int = 0
    used: int = 0
    remuxed_clips: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shots: list[int] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the account for the manifest; what nothing accounts for was lost to damage."""
        lost = self.num_frames - self.used - sum(self.dropped.values())
        dropped = dict(sorted(self.dropped.items())) | ({DAMAGE: lost} if lost else {})
        return {**asdict(self), "dropped": dropped}


@dataclass
class Tick:
    """One frame of the constant-rate film.

    frame: as decoded; scaled: as a clip of full length would store it, not turned yet; look: BGR,
    reduced for measurements; packet: what it came from, None where that cannot be told;
    after_hole: nothing was shown for long before it; skipped: seconds of all holes so far; done:
    what was done to it (``data.media.prepare``).
    """

    frame: av.VideoFrame
    scaled: av.VideoFrame
    look: Look
    packet: Any
    after_hole: bool = False
    skipped: float = 0.0
    done: dict[str, str] = field(default_factory=dict)


@dataclass
class Shown:
    """One clip of a film: where it starts, its frames, its shot, and the cuts inside it."""

    start: int
    ticks: list[Tick]
    shot: int
    cuts: list[int]


class ClipPlanner:
    """Decide, as a film's shots become known, which frames make clips.

    Lengths follow ``clip_frames`` in turn; the last clip of a shot takes the longest
    1 + k * cell[0] that is left (two latent frames at least). At most ``most`` clips are taken,
    spread evenly over ``num_frames``: by frame ``s``, 1 + floor(most * s / num_frames) of them.
    With ``most=0`` all are taken.
    """

    def __init__(self, config: IngestConfig, num_frames: int, most: int) -> None:
        self.step, self.most, self.num_frames = config.cell[0], most, max(1, num_frames)
        self.lengths = cycle(config.clip_frames or [config.max_frames])
        self.wanted = next(self.lengths)
        self.start = self.taken = 0
        self.dropped: Counter[str] = Counter()

    def advance(self, end: int, shot_ends: bool) -> list[tuple[int, int]]:
        """Return the clips (first frame, number of frames) that frames before ``end`` make.

        All of them belong to the present shot, which stops at ``end`` if ``shot_ends``.
        """
        clips: list[tuple[int, int]] = []
        while self.start < end:
            left = end - self.start
            if left < self.wanted and not shot_ends:
                break
            length = min(self.wanted, (left - 1) // self.step * self.step + 1)
            if length < 1 + self.step:
                self.dropped[SHOT_END] += left
                self.start = end
                break
            due = min(self.most, 1 + self.most * self.start // self.num_frames)
            if not self.most or self.taken < due:
                clips.append((self.start, length))
                self.taken += 1
            else:
                self.dropped[TOO_MANY] += length
            self.start += length
            self.wanted = next(self.lengths)
        return clips


def cut(num_frames: int, config: IngestConfig, most: int) -> list[tuple[int, int]]:
    """Return (first frame, number of frames) of the clips of one shot, at most ``most`` of them.

    Raises Reject if it is too short for one clip.
    """
    planner = ClipPlanner(config, num_frames, most)
    return planner.advance(num_frames, shot_ends=True) or reject_short(num_frames, config)


def reject_short(num_frames: int, config: IngestConfig) -> list[tuple[int, int]]:
    """Raise the Reject of a film without a clip."""
    least = 1 + config.cell[0]
    raise Reject(f"too few frames: {num_frames}", f"A clip needs {least} frames of one shot.")


def with_own_length(config: IngestConfig, facts: Facts) -> IngestConfig:
    """Return the settings for one film: with ``max_frames=0`` its clips fill ``token_cap``.

    They have as many frames as fit at the film's own size, in the bounds above.
    """
    if config.max_frames or config.clip_frames:
        return config
    height, width = (max(2, round(side / 2) * 2) for side in (facts.height, facts.width))
    groups = config.token_cap // tokens(1, height, width, cell_of(config)) - 1
    groups = min(max(groups, FEWEST_GROUPS), MOST_GROUPS)
    return replace(config, max_frames=1 + groups * config.cell[0])


def stored_size(num_frames: int, facts: Facts, config: IngestConfig) -> tuple[int, int]:
    """Return the (height, width) a film's clip is stored at, before it is turned."""
    height, width = fit_size(num_frames, facts.height, facts.width, config)
    return (width, height) if facts.rotation % 180 else (height, width)


def read_ticks(
    container: Any,
    facts: Facts,
    config: IngestConfig,
    scaler: Scaler,
    span: tuple[float, float] | None = None,
) -> Iterator[Tick]:
    """Decode a film (an open container), or a span of it, once; yield frames at a constant rate.

    Files of constant rate keep each frame once; others show the newest frame at each tick of
    1 / fps. A large frame is read once: the small one is made from the scaled one. Raises Reject
    where decoding fails, and SizeChanged after the last frame before another size.
    """
    size = stored_size(max(config.clip_frames or [config.max_frames]), facts, config)
    scale = min(1.0, LOOK_SIDE / max(facts.stored_height, facts.stored_width))
    height, width = (
        max(2, round(side * scale / 2) * 2) for side in (facts.stored_height, facts.stored_width)
    )
    held: Tick | None = None
    number, first_time, time, skipped = 0, 0.0, 0.0, 0.0
    last: float | None = None
    changed: SizeChanged | None = None
    with rejecting("decoding"):
        frames = prepared(frames_in(container, span, facts.fps), config)
        while True:
            try:
                one = next(frames, None)
            except SizeChanged as error:
                one, changed = None, error
            if one is None:
                break
            scaled = scaler.scaled(one.frame, *size)
            time = one.frame.time if one.frame.time is not None else time
            hole = time - last - 1 / facts.fps if last is not None else 0.0
            is_hole, last = hole + 1 / facts.fps > facts.hole_seconds, time
            skipped += hole if is_hole else 0.0
            small = scaler.small(scaled, height, width)
            tick = Tick(one.frame, scaled, small, one.packet, is_hole, skipped, one.done)
            if facts.is_constant:
                yield tick
                continue
            first_time += hole if is_hole else 0.0
            if held is None:
                first_time = time
            while held is not None and (
                first_time + number / facts.fps + TIME_TOLERANCE_SECONDS < time
            ):
                yield held
                number += 1
                held = replace(held, after_hole=False)
            held = tick
        if held is not None and first_time + number / facts.fps <= time + TIME_TOLERANCE_SECONDS:
            yield held
        if changed:
            raise changed


def frames_in(
    container: Any, span: tuple[float, float] | None, fps: float
) -> Iterator[tuple[av.VideoFrame, Any]]:
    """Decode what of a film lies in a span of seconds from its first frame, all of it without one.

    A frame belongs to the span that holds its middle, so that rounded stamps lose none. Decoding
    starts at the key frame before, or at the film's start where seeking comes out too late.
    Pictures in turn are read from the first.
    """
    half = 0.5 / fps
    if isinstance(container, MovingPicture):
        for frame, _ in container:
            if span is None or span[0] - half <= frame.time < span[1] - half:
                yield frame, None
        return
    if span is None:
        yield from decoded(container)
        return
    stream = container.streams.video[0]
    first = stream.start_time or 0
    origin = float(first * stream.time_base)
    start, end = origin + span[0] - half, origin + span[1] - half
    for place in (int((origin + span[0]) / stream.time_base), first):
        container.seek(place, stream=stream, backward=True)
        times: list[float] = []
        for frame, packet in decoded(container):
            if frame.time is None:
                raise Reject("has frames without times, so that stamps mean nothing", "Remux it.")
            times = times or [frame.time]
            if place > first and times[0] >= start + 2 * half:
                break  # frames of the span are missing
            if frame.time >= end:
                return
            if frame.time >= start:
                yield frame, packet
        else:
            return


def clips_of(
    ticks: Iterator[Tick], config: IngestConfig, num_frames: int, most: int, account: Account
) -> Iterator[Shown]:
    """Yield a film's clips as soon as their ends are known; fill in ``account``.

    ``num_frames`` is how many frames are expected. With ``shots=split`` no clip holds a cut, and
    none ever spans a hole. Raises SizeChanged after the clips of the frames before it.
    """
    planner = ClipPlanner(config, num_frames, most)
    finder = None if config.shots is Shots.none else ShotFinder(config.shot_threshold)
    splits = config.shots is Shots.split
    waiting: deque[Tick] = deque()
    base = 0  # the film's number of waiting[0]
    starts = [0]
    holes: set[int] = set()

    def take(spans: list[tuple[int, int]]) -> Iterator[Shown]:
        nonlocal base
        for start, length in spans:
            chosen = [waiting[start - base + i] for i in range(length)]
            inside = [c - start for c in starts if start < c < start + length]
            yield Shown(start, chosen, bisect_right(starts, start) - 1, inside)
        while base < planner.start:
            waiting.popleft()
            base += 1

    changed: SizeChanged | None = None
    while True:
        try:
            tick = next(ticks, None)
        except SizeChanged as error:
            tick, changed = None, error
        if tick is None:
            break
        waiting.append(tick)
        if tick.after_hole:
            holes.add(account.num_frames)
        account.num_frames += 1
        if finder:
            cuts = finder.push(tick.look, tick.after_hole)
        else:
            cuts = [account.num_frames - 1] if tick.after_hole else []
        starts += cuts
        for boundary in cuts if splits else sorted(holes.intersection(cuts)):
            yield from take(planner.advance(boundary, shot_ends=True))
        settled = finder.settled if finder else account.num_frames
        yield from take(planner.advance(settled, shot_ends=False))
    cuts = finder.finish() if finder else []
    starts += cuts
    ends = cuts if splits else sorted(holes.intersection(cuts))
    for boundary in [*ends, account.num_frames]:
        yield from take(planner.advance(boundary, shot_ends=True))
    account.dropped += planner.dropped
    if finder:
        account.shots, account.scenes = starts, finder.scenes()
    if changed:
        raise changed
