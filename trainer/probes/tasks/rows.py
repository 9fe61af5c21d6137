"""The table: every task beside its ceiling and its floors."""

from trainer.probes.tasks.columns import join, keep
from trainer.probes.tasks.composed import edit, loop, prototype, text
from trainer.probes.tasks.continued import connect, extended, image_to_video, windows
from trainer.probes.tasks.draws import KNOWN, WINDOW, Asked, Drawn, Worlds
from trainer.probes.tasks.interval import Row
from trainer.probes.tasks.reading import Array

AFTER, BEFORE = slice(KNOWN, WINDOW), slice(0, WINDOW - KNOWN)  # frames that are made


def rows_of(worlds: Worlds, drawn: Drawn, asked: Asked, preferences: dict[str, Array]) -> list[Row]:
    """Return the whole table."""
    clips, rotor, damped = drawn.clips, worlds.rotor, worlds.damped
    ahead = [frames[:WINDOW] for frames in clips["forwards"]]
    frozen = [keep(clip.frames, AFTER, KNOWN - 1) for clip in rotor]
    begun = [keep(clip.frames, BEFORE, WINDOW - KNOWN) for clip in rotor]
    held = [keep(clip.frames, BEFORE, WINDOW - KNOWN) for clip in damped]
    pairs = list(zip(rotor, clips["free"], strict=True))
    after = [join(clip.frames, free, AFTER) for clip, free in pairs]
    before = [join(clip.frames, free, BEFORE) for clip, free in pairs]
    turned = [frames[::-1] for frames in clips["turned"]]
    ends = "the first three frames", "the last three frames"
    return [
        image_to_video(worlds.strip, clips["image"]),
        extended(
            "extend forwards", ends[0], rotor, ahead, AFTER, {"static": frozen, "free": after}
        ),
        windows(rotor, clips["forwards"], clips["free"]),
        extended(
            "extend backwards", ends[1], rotor, clips["backwards"], BEFORE,
            {"static": begun, "free": before},
        ),
        extended(
            "backwards, with an arrow of time", ends[1], damped, clips["arrow"], BEFORE,
            {"static": held, "forward model, reversed clip": turned},
        ),
        connect(rotor, clips["connect"]),
        loop(worlds.loops, clips["loop"]),
        edit(worlds.strip, drawn, asked),
        prototype(rotor, drawn),
        text(rotor, clips["rotor_text"], preferences["rotor"]),
        text(worlds.strip, clips["strip_text"], preferences["strip"]),
    ]  # fmt: skip
