"""Tasks that give frames: image to video, extensions either way and by windows, connect."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from trainer.probes.tasks.columns import Clips, distances, each, errors, shifted
from trainer.probes.tasks.draws import KNOWN, LONG, WINDOW
from trainer.probes.tasks.interval import Measured, Row
from trainer.probes.tasks.known import MIDDLE, Known, cross_fade, later, still, typical
from trainer.probes.tasks.measures import (
    NEAR,
    across,
    angles,
    is_monotone,
    keeps_identity,
    motion_ratio,
    moves,
    unseen,
    velocity_error,
)
from trainer.probes.tasks.reading import Array, Frames, read_path


def image_to_video(truth: list[Known], clips: Clips) -> Row:
    """Measure the first frame of a strip that goes on: its speed is almost told by its place."""
    true = [clip.frames for clip in truth]
    static = [still(clip.frames[:1], len(clip.frames)) for clip in truth]
    another = [
        np.concatenate([clip.frames[:1], other.frames[1:]])
        for clip, other in zip(truth, shifted(truth), strict=True)
    ]

    def pace(clip: Known, frames: Frames) -> float:
        shown = clip.whole & (np.arange(len(frames)) > 0)
        return velocity_error(clip.sure(frames), clip.path, shown)

    def identity(clip: Known, frames: Frames) -> bool:
        return keeps_identity(read_path(frames), clip.path)

    def motion(clip: Known, frames: Frames) -> bool:
        return moves(motion_ratio(clip.sure(frames), clip.sure(clip.frames)))

    def joint(clip: Known, frames: Frames) -> bool:
        return unseen(across(frames, 1, 1), typical(clip, 1))

    def measured(name: str, larger: bool, of: Callable[..., Any], **floors: Clips) -> Measured:
        found = {floor: each(of, truth, frames) for floor, frames in floors.items()}
        return Measured(name, larger, each(of, truth, clips), each(of, truth, true), found)

    return Row(
        "image to video",
        "strip",
        "the first frame",
        [
            measured("velocity error, pixels a frame", False, pace, static=static, other=another),
            measured("identity kept to the last frame", True, identity, other=another),
            measured("motion ratio within 0.5 to 2", True, motion, static=static),
            measured("joint unseen, first difference", True, joint, static=static, other=another),
        ],
    )


def extended(
    task: str, given: str, truth: list[Known], clips: Clips, made: slice, floors: dict[str, Clips]
) -> Row:
    """Measure rotors of which some frames are made and the others given."""
    name = truth[0].world.name
    joint = made.start or made.stop

    def wrong(clip: Known, frames: Frames) -> float:
        return float(errors(clip, frames, made).mean())

    def seam(clip: Known, frames: Frames) -> bool:
        return unseen(across(frames, joint, 2), typical(clip, 2))

    table = np.array(
        [errors(clip, frames, made) for clip, frames in zip(truth, clips, strict=True)]
    )
    order = 1 if made.start else -1  # nearest to what is given first
    true = [clip.frames for clip in truth]
    measures = [
        Measured(
            "state error, pixels", False, each(wrong, truth, clips), each(wrong, truth, true),
            {floor: each(wrong, truth, frames) for floor, frames in floors.items()},
            {"by_horizon": table.mean(0)[::order].tolist()},
        ),
        Measured(
            "joint unseen, second difference", True,
            each(seam, truth, clips), each(seam, truth, true),
            {floor: each(seam, truth, frames) for floor, frames in floors.items()},
        ),
    ]  # fmt: skip
    return Row(task, name, given, measures)


def windows(truth: list[Known], clips: Clips, free: Clips) -> Row:
    """Measure the same rotors 21 frames on, four windows long, beside an even turn for ever."""
    static = [still(clip.frames[KNOWN - 1 : KNOWN], LONG) for clip in truth]
    # Nothing given: a clip of its own that starts again with each window.
    again = [np.concatenate([frames] * (LONG // WINDOW + 1))[:LONG] for frames in free]
    ends = [KNOWN, *range(WINDOW, LONG + 1, WINDOW - WINDOW // 2)]
    parts = [slice(a, b) for a, b in pairwise(ends)]

    def off(clip: Known, frames: Frames) -> Array:
        return distances(clip.sure(frames), later(clip, len(frames)), clip)

    def last(clip: Known, frames: Frames) -> float:
        return float(off(clip, frames)[parts[-1]].mean())

    def kept(clip: Known, frames: Frames) -> bool:
        return keeps_identity(read_path(frames), clip.path)

    paths = [read_path(frames) for frames in clips]
    gaps = np.array([off(clip, frames) for clip, frames in zip(truth, clips, strict=True)])
    true = np.array([clip.path.area.mean() for clip in truth])
    area = np.array([path.area for path in paths]) / true[:, None]
    ink = np.array([path.ink == clip.ink for path, clip in zip(paths, truth, strict=True)])
    by_window = [
        {
            "frames": [part.start, part.stop - 1],
            "state error": float(gaps[:, part].mean()),
            "area over the true one": float(area[:, part].mean()),
            "colour right": float(ink[:, part].mean()),
        }
        for part in parts
    ]
    perfect = np.zeros(len(truth))
    return Row(
        "extend forwards by windows",
        "rotor",
        "the first three frames, then what windows drew",
        [
            Measured(
                "state error in the fourth window, pixels", False, each(last, truth, clips),
                perfect, {"static": each(last, truth, static), "free": each(last, truth, again)},
                {"by_window": by_window},
            ),
            Measured(
                "identity kept to the last frame", True, each(kept, truth, clips), perfect + 1, {}
            ),
        ],
    )  # fmt: skip


def connect(truth: list[Known], clips: Clips) -> Row:
    """Measure the middle of rotors whose both ends are given."""
    middle = slice(KNOWN, WINDOW - KNOWN)
    true = [clip.frames for clip in truth]
    faded = [
        np.concatenate(
            [
                frames[:KNOWN],
                cross_fade(
                    frames[KNOWN - 1 : KNOWN],
                    frames[WINDOW - KNOWN : WINDOW - KNOWN + 1],
                    WINDOW - 2 * KNOWN,
                ),
                frames[WINDOW - KNOWN :],
            ]
        )
        for frames in true
    ]

    def seams(clip: Known, frames: Frames) -> bool:
        reference = typical(clip, 2)
        both = [across(frames, joint, 2) for joint in (KNOWN, WINDOW - KNOWN)]
        return unseen(np.concatenate(both), reference)

    def monotone(clip: Known, frames: Frames) -> bool:
        angle = angles(clip.sure(frames), MIDDLE["rotor"])[KNOWN - 1 : WINDOW - KNOWN + 1]
        return is_monotone(angle, (1, -1)[clip.scene.direction])

    def lawful(clip: Known, frames: Frames) -> bool:
        return bool(errors(clip, frames, middle).max() <= NEAR)

    def measured(name: str, of: Callable[..., Any]) -> Measured:
        floor = {"cross-fade": each(of, truth, faded)}
        return Measured(name, True, each(of, truth, clips), each(of, truth, true), floor)

    return Row(
        "connect",
        "rotor",
        "the first three and the last three frames",
        [
            measured("both joints unseen, second difference", seams),
            measured("middle turns one way", monotone),
            measured(f"middle within {NEAR:g} pixel of the law's", lawful),
        ],
    )
