"""Tasks that make a whole clip or a part of every frame: loop, edit, prototype to full, text."""

from collections.abc import Callable
from typing import Any

import numpy as np

from data.worlds.tiny.rotor import PERIODS
from models.dit.embed import patchify
from trainer.probes.tasks.columns import Clips, each, shifted
from trainer.probes.tasks.draws import Asked, Drawn, made_pixels
from trainer.probes.tasks.interval import Measured, Row
from trainer.probes.tasks.known import (
    LOOP,
    MIDDLE,
    Known,
    edited,
    halved,
    hitching,
    lamp_of,
    ping_pong,
    rotor_like,
    still,
    typical,
    without_lamp,
)
from trainer.probes.tasks.measures import (
    angles,
    is_loop,
    moves,
    path_length,
    period_of,
    rim_and_interior,
    turns,
    unseen,
    wrapped,
)
from trainer.probes.tasks.reading import Array, Frames, Path, light_of, read_path

GONE = 8.0  # pixels: half a side, between two dots of which one is not there
SMALL_FAINT = 0.5  # pixels of ink: of pictures of half the sides


def loop(truth: list[Known], clips: Clips) -> Row:
    """Measure loops of eight frames; what their speed, colour and light are is read from them."""
    true = [clip.frames[:LOOP] for clip in truth]
    static = [still(clip.frames[:1], LOOP) for clip in truth]
    to_and_fro, hitch = [ping_pong(clip) for clip in truth], [hitching(clip) for clip in truth]

    def like(frames: Frames) -> tuple[Path, Known | None]:
        path = read_path(frames)
        if not path.seen.any():
            return path, None
        ink = int(np.bincount(path.ink[path.seen]).argmax())
        period = period_of(angles(path, MIDDLE["rotor"]), PERIODS)
        other = rotor_like(ink, light_of(frames), period)
        return path.sure(ink, other.area), other

    def seam(frames: Frames) -> bool:
        _, other = like(frames)
        return other is not None and unseen(wrapped(frames, 2), typical(other, 2))

    def motion(frames: Frames) -> bool:
        path, other = like(np.concatenate([frames, frames[:1]]))
        return other is not None and moves(path_length(path) / path_length(other.path))

    def round_(frames: Frames) -> bool:
        return is_loop(angles(like(frames)[0], MIDDLE["rotor"]))

    def measured(name: str, of: Callable[..., Any], **floors: Clips) -> Measured:
        found = {floor.replace("_", " "): each(of, frames) for floor, frames in floors.items()}
        return Measured(name, True, each(of, clips), each(of, true), found)

    return Row(
        "loop",
        "rotor",
        "nothing: eight frames under a prompt",
        [
            measured(
                "wrap-around unseen, second difference", seam,
                ping_pong=to_and_fro, static=static, first_is_last=hitch,
            ),
            measured("motion ratio within 0.5 to 2", motion, static=static),
            measured(
                "turns round evenly", round_,
                ping_pong=to_and_fro, static=static, first_is_last=hitch,
            ),
        ],
    )  # fmt: skip


def edit(truth: list[Known], drawn: Drawn, asked: Asked) -> Row:
    """Measure strips whose lamp is made anew under the caption of the other lamp."""
    clips, regenerated = drawn.clips["edit"], drawn.clips["regenerated"]
    true, wanted = [clip.frames for clip in truth], [edited(clip) for clip in truth]
    target = [clip.frames for clip in wanted]
    bare = [without_lamp(frames) for frames in target]
    begun = [asked.without_lamp(clip.frames) for clip in truth]
    made = made_pixels(begun[0], true[0])

    def right(clip: Known, frames: Frames) -> float:
        return float((lamp_of(frames) == lamp_of(clip.frames)).mean())

    def changed(clip: Known, frames: Frames) -> float:
        gaps = np.square(frames.astype(np.float64) - clip.frames).mean((0, 3))
        return float(np.sqrt(gaps[~made].mean()))

    def wrong(clip: Known, frames: Frames) -> float:
        gaps = np.square(frames.astype(np.float64) - clip.frames).mean((0, 3))
        return float(np.sqrt(gaps[made].mean()))

    rims = np.array(
        [rim_and_interior(a, b.frames, made, 1) for a, b in zip(clips, wanted, strict=True)]
    )
    kept = [
        patchify(latent - begin.latent)[begin.given.flatten()].abs().max().item()
        for latent, begin in zip(drawn.latents["edit"], begun, strict=True)
        if begin.given is not None
    ]
    rim = {"rim error": float(rims[:, 0].mean()), "interior error": float(rims[:, 1].mean())}
    return Row(
        "edit",
        "strip",
        "all but the tokens with the lamp, which the prompt changes",
        [
            Measured(
                "lamp right, share of frames", True, each(right, wanted, clips),
                each(right, wanted, target),
                {"unedited": each(right, wanted, true), "chance": np.full(len(truth), 0.5)},
            ),
            Measured(
                "error where it is made, grey levels", False, each(wrong, wanted, clips),
                each(wrong, wanted, target),
                {"unedited": each(wrong, wanted, true), "no lamp": each(wrong, wanted, bare)}, rim,
            ),
            Measured(
                "change elsewhere, grey levels", False, each(changed, truth, clips),
                np.zeros(len(truth)), {"regenerated": each(changed, truth, regenerated)},
                {"largest change of a kept latent": max(kept)},
            ),
        ],
    )  # fmt: skip


def prototype(truth: list[Known], drawn: Drawn) -> Row:
    """Measure how far a full clip's dot is from that of its prototype of half the sides."""

    def apart(clip: Known, frames: Frames, low: Frames) -> float:
        small = read_path(low, SMALL_FAINT).scaled(2).sure(clip.ink, clip.area)
        gaps = np.linalg.norm(clip.sure(frames).at - small.at, axis=1)
        return float(np.where(np.isnan(gaps), GONE, gaps).mean())

    def moving(frames: Frames) -> float:
        return path_length(read_path(frames))

    full, low = drawn.clips["prototype"], drawn.small
    true = [clip.frames for clip in truth]
    return Row(
        "prototype to full",
        "rotor",
        "nothing: the full clip begins from its prototype",
        [
            Measured(
                "distance of the dots, pixels", False, each(apart, truth, full, low),
                each(apart, truth, true, [halved(frames) for frames in true]),
                {"other seed": each(apart, truth, drawn.clips["free"], low)},
                {"path of the full clips, pixels": float(each(moving, full).mean())},
            )
        ],
    )  # fmt: skip


def text(truth: list[Known], clips: Clips, preference: Array) -> Row:
    """Measure whether clips show what their prompts say, and whether the loss prefers captions."""

    def facts(path: Path, strip: bool) -> list[object]:
        if not path.seen.any():
            return []
        ink = int(np.bincount(path.ink[path.seen]).argmax())
        if strip:
            x = path.at[path.seen, 0]
            return [ink, bool(x[-1] > x[0])]
        turn = turns(angles(path, MIDDLE["rotor"]))
        seen = turn[~np.isnan(turn)]
        return [ink, bool(seen.sum() > 0), bool(np.abs(seen).mean() > 0.9)] if len(seen) else [ink]

    strip = truth[0].world.name == "strip"
    shown = [facts(read_path(frames), strip) for frames in clips]
    said = [facts(clip.path, strip) for clip in truth]

    def right(found: list[object], asked: list[object]) -> float:
        padded = found + [None] * (len(asked) - len(found))
        return float(np.mean([a == b for a, b in zip(padded, asked, strict=True)]))

    chance = np.mean([each(right, shown, shifted(said, by)) for by in range(1, len(said))], 0)
    names = ("colour", "way") if strip else ("colour", "way", "pace")
    apart = {
        name: float(each(lambda a, b, n=n: len(a) > n and a[n] == b[n], shown, said).mean())
        for n, name in enumerate(names)
    }
    return Row(
        "text",
        truth[0].world.name,
        "a prompt, guided",
        [
            Measured(
                f"{', '.join(names)} right", True, each(right, shown, said),
                each(right, said, said), {"another's prompt": chance}, apart,
            ),
            Measured(
                "own caption has the smaller loss", True, preference, np.ones(len(truth)),
                {"chance": np.full(len(truth), 0.5)},
            ),
        ],
    )  # fmt: skip
