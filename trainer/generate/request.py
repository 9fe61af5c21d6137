"""One clip to make: its keys, their bounds, and what must go together."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, MinLen
from typing_extensions import Doc

from models.objective import Method, Route, Spacing
from trainer.config import Seed, Share

AUTO = "auto"
SUFFIXES = (".mp4", ".gif", ".png")
STILL_SHARE = 0.04  # of the steps, whose velocity CFG-Zero* takes as zero (Fan et al. 2025)
PATH_KEYS = ("image", "video", "next_video", "mask")
_STORED = {"root", "split", "key"}


class Format(StrEnum):
    """What a clip is written as; a PNG of several frames is a contact sheet of them."""

    mp4 = "mp4"
    gif = "gif"
    png = "png"


class Task(StrEnum):
    """What is made, of what."""

    text_to_video = "text_to_video"
    image_to_video = "image_to_video"
    extend_forwards = "extend_forwards"
    extend_backwards = "extend_backwards"
    connect = "connect"
    edit = "edit"
    flow_edit = "flow_edit"
    loop = "loop"


# What each task reads beside a prompt: (must have, may have).
READS: dict[Task, tuple[set[str], set[str]]] = {
    Task.text_to_video: (set(), {"prototype"}),
    Task.image_to_video: ({"image"}, {"frames"}),
    Task.extend_forwards: ({"video"}, set()),
    Task.extend_backwards: ({"video"}, set()),
    Task.connect: ({"video", "next_video"}, set()),
    Task.edit: ({"video"}, {"mask", "strength"}),
    Task.flow_edit: ({"video"}, {"source_prompt", "strength"}),
    Task.loop: (set(), set()),
}


@dataclass
class Request:
    """One clip to make; see the help of ``trainer.generate.generate``."""

    out: Annotated[
        str, Doc("File to write: .mp4, .gif, or .png, which holds a contact sheet of a clip.")
    ] = ""
    also: Annotated[
        list[Format], Doc("Further formats of the same clip, beside it under their own endings.")
    ] = field(default_factory=list)
    prompt: Annotated[str, Doc("What to show; empty draws without a caption.")] = ""
    negative: Annotated[
        str, Doc("What to stay away from: takes the place of no prompt in guidance.")
    ] = ""
    task: Annotated[Task, Doc("What is made, of what: see the table of tasks in the help.")] = (
        Task.text_to_video
    )
    image: Annotated[str, Doc("Picture that task=image_to_video begins with.")] = ""
    frames: Annotated[
        list[Annotated[int, Ge(-9999), Le(9999)]],
        MinLen(1),
        Doc(
            "Which frames of the clip the image is; -1 is the last. A later one stands still for "
            "codec.stride[0] frames."
        ),
    ] = field(default_factory=lambda: [0])
    video: Annotated[str, Doc("Clip that is gone on from, joined or changed.")] = ""
    next_video: Annotated[str, Doc("Clip that task=connect leads to.")] = ""
    mask: Annotated[
        str, Doc("Picture of the video's size, white where task=edit makes it anew; empty: all.")
    ] = ""
    strength: Annotated[
        float, Gt(0), Le(1), Doc("How far task=edit and flow_edit go back to noise; 1 is all.")
    ] = 1.0
    source_prompt: Annotated[str, Doc("What the video shows, for task=flow_edit.")] = ""
    prototype: Annotated[
        int,
        Ge(1),
        Doc("Draw it so many times smaller first, then the full clip from that at ``strength``."),
    ] = 1
    window: Annotated[
        int,
        Ge(0),
        Doc(
            "Most frames drawn at once: a longer clip is drawn in windows, each of which is given "
            "half of its latents by the one before; 0 draws all at once."
        ),
    ] = 0
    lag: Annotated[
        int,
        Ge(0),
        Le(1000),
        Doc(
            "Looks by which each latent frame stands behind the one before it (diffusion forcing); "
            "0 draws all frames at one time."
        ),
    ] = 0
    given_at: Annotated[
        float,
        Ge(0.5),
        Le(1),
        Doc(
            "Time at which what is given is looked at, by a window's frames of the one before, too;"
            " below 1 it stands nearly clean. The clip holds it as it was given."
        ),
    ] = 1.0
    num_frames: Annotated[
        int, Ge(1), Doc("Frames of the result, 1 + k * codec.stride[0]; of a loop k * that.")
    ] = 17
    height: Annotated[int, Ge(1), Doc("Pixels from top to bottom, any number.")] = 128
    width: Annotated[int, Ge(1), Doc("Pixels from left to right, any number.")] = 128
    fps: Annotated[float, Gt(0), Le(120), Doc("Frames a second.")] = 12.0
    seed: Annotated[Seed, Doc("Decides the noise, with prompt and shape.")] = 0
    method: Annotated[
        Method,
        Doc("One look a step (euler, multistep) or two (heun); multistep needs the fewest."),
    ] = Method.multistep
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 24
    guidance: Annotated[
        float, Ge(0), Doc("Weight of the prompt against no prompt; 1 leaves guidance out.")
    ] = 2.0
    guidance_range: Annotated[
        list[Share], Len(2, 2), Doc("Times from 0 (noise) to 1 (data) at which guidance acts.")
    ] = field(default_factory=lambda: [0.0, 1.0])
    cfg_zero: Annotated[
        bool,
        Doc("CFG-Zero*: scale what guidance pushes away from, and stand still in the first steps."),
    ] = False
    shift: Annotated[
        str,
        Doc(
            "Times are spaced finer near noise above 1, finer near data below; auto takes what "
            "training gave to clips of as many tokens."
        ),
    ] = AUTO
    spacing: Annotated[
        Spacing,
        Doc("Before the shift, steps are even in t, or at even shares of the trained density."),
    ] = Spacing.even
    reference: Annotated[
        dict[str, str],
        Doc("root, split and key of a stored clip that goes through the codec instead."),
    ] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width, in pixels."""
        return self.num_frames, self.height, self.width

    @property
    def files(self) -> list[Path]:
        """What is written: ``out``, then the further formats."""
        out = Path(self.out)
        others = (out.with_suffix(f".{form.value}") for form in self.also)
        return list(dict.fromkeys([out, *others]))

    @property
    def route(self) -> Route:
        """The times and steps of the sampler."""
        return Route(
            method=self.method,
            num_steps=self.steps,
            shift=None if self.shift == AUTO else float(self.shift),
            spacing=self.spacing,
            start=1 - self.strength,
            still=math.ceil(STILL_SHARE * self.steps) if self._stands_still else 0,
        )

    @property
    def is_guided(self) -> bool:
        """Whether two velocities differ: without a prompt and a negative there is one."""
        texts = self.prompt, self.negative, self.source_prompt
        return self.guidance != 1.0 and any(text.strip() for text in texts)

    @property
    def begins(self) -> bool:
        """Whether an image or a video is read."""
        return bool(self.image or self.video)

    @property
    def small(self) -> "Request":
        """The prototype that is drawn first."""
        height, width = -(-self.height // self.prototype), -(-self.width // self.prototype)
        return replace(self, height=height, width=width, prototype=1, strength=1.0)

    @property
    def _stands_still(self) -> bool:
        return self.cfg_zero and self.is_guided and self.steps > 1

    def check(self) -> None:
        """Raise ValueError on values that cannot be sampled."""
        low, high = self.guidance_range
        endings = ", ".join(SUFFIXES)
        rules = {
            "out": (bool(self.out), "name a file"),
            "reference": (set(self.reference) in (set(), _STORED), "hold root, split and key"),
            "guidance_range": (low <= high, "rise, from noise (0) to data (1)"),
            "shift": (_is_shift(self.shift), "be auto or a positive number"),
        }
        if self.out:
            rules["out"] = (Path(self.out).suffix in SUFFIXES, f"end with one of {endings}")
        rules |= self._task_rules()
        for key, (ok, rule) in rules.items():
            if not ok:
                raise ValueError(f"{key}={getattr(self, key)}: must {rule}. See --help.")

    def _task_rules(self) -> dict[str, tuple[bool, str]]:
        needs, reads = READS[self.task]
        task = f"task={self.task.value}"
        plain = Request()
        rules = {}
        for key in ("prototype", "frames", "strength", "source_prompt", *PATH_KEYS):
            said = getattr(self, key) != getattr(plain, key)
            if key in needs:
                rules[key] = (said, f"name a file for {task}")
            elif said and key not in reads and not (key == "strength" and self.prototype > 1):
                users = [t.value for t, (must, may) in READS.items() if key in must | may]
                rules[key] = (False, f"be left out of {task}; it is for {', '.join(users)}")
        if self.window:
            rules["window"] = (
                self.task not in (Task.loop, Task.flow_edit) and self.strength == 1,
                "be 0 for loop, flow_edit and a strength below 1",
            )
        if self.task in (Task.loop, Task.flow_edit):
            for key, plain_value in (("lag", 0), ("given_at", 1)):
                rules[key] = (
                    getattr(self, key) == plain_value,
                    f"be {plain_value} for loop and flow_edit, whose frames go together",
                )
        if self.prototype > 1:
            rules["strength"] = (self.strength < 1, "be below 1 with a prototype")
        if self.task is Task.edit and not self.mask and self.video:
            rules["strength"] = (self.strength < 1, "be below 1 where no mask says what to keep")
        return rules


def _is_shift(text: str) -> bool:
    if text == AUTO:
        return True
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
