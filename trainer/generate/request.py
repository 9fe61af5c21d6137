"""One clip to make: its keys, their bounds, and how a command line or a file says them."""

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Len
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import Doc

from data.bounds import check_bounds
from data.command_line import read_json
from data.keys import guess
from models.objective import Method, Route, Spacing
from trainer.config import Seed, Share

AUTO = "auto"
SUFFIXES = (".mp4", ".gif", ".png")
STILL_SHARE = 0.04  # of the steps, whose velocity CFG-Zero* takes as zero (Fan et al. 2025)
_TEXT_KEYS = ("run", "requests", "out", "prompt", "negative")
_STORED = {"root", "split", "key"}


class Format(StrEnum):
    """What a clip is written as; a PNG of several frames is a contact sheet of them."""

    mp4 = "mp4"
    gif = "gif"
    png = "png"


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
    num_frames: Annotated[int, Ge(1), Doc("Frames, 1 + k * codec.stride[0]; 1 is an image.")] = 17
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
            still=math.ceil(STILL_SHARE * self.steps) if self._stands_still else 0,
        )

    @property
    def is_guided(self) -> bool:
        """Whether two velocities differ: without a prompt and a negative there is one."""
        return self.guidance != 1.0 and bool(self.prompt.strip() or self.negative.strip())

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
        for key, (ok, rule) in rules.items():
            if not ok:
                raise ValueError(f"{key}={getattr(self, key)}: must {rule}. See --help.")


def _is_shift(text: str) -> bool:
    if text == AUTO:
        return True
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def parse(argv: list[str]) -> tuple[Path, list[Request], int]:
    """Parse key=value arguments into a run folder, requests and the token budget of a pack.

    Beside a file of requests, keys are defaults of all of them.
    """
    pairs = [argument.partition("=") for argument in argv]
    # Text is taken as it stands: "a cube: red" is a prompt, not YAML.
    given: dict[str, Any] = {key: value for key, _, value in pairs if key in _TEXT_KEYS}
    others = [argument for argument in argv if argument.partition("=")[0] not in _TEXT_KEYS]
    parsed = OmegaConf.to_container(OmegaConf.from_dotlist(others))
    given |= {str(key): value for key, value in dict(parsed).items()}  # type: ignore[arg-type]
    folder = given.pop("run", None)
    if not folder:
        raise ValueError("run=: must name a run folder. See --help.")
    budget = given.pop("pack_tokens", 0)
    if not isinstance(budget, int) or budget < 0:
        raise ValueError(f"pack_tokens={budget}: must be 0 or more tokens. Leave it out.")
    file = given.pop("requests", None)
    entries = read_json(Path(file), "requests") if file else [{}]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"requests={file}: must hold a list of objects. See --help.")
    requests = [_request(given | entry) for entry in entries]
    files = [path for request in requests for path in request.files]
    if twice := [path for path in files if files.count(path) > 1]:
        raise ValueError(f"out={twice[0]}: is written by two requests. Name another file.")
    return Path(folder), requests, budget


def _request(entry: dict[str, Any]) -> Request:
    texts = {key: entry.get(key, "") for key in ("prompt", "negative")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{key}={text}: must be text. See --help.")
    plain = {key: value for key, value in entry.items() if key not in texts}
    try:
        request = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Request), plain))
    except OmegaConfBaseException as error:
        names = [f.name for f in fields(Request)]
        reason = str(error).splitlines()[0]
        near = "" if error.full_key in names else guess(str(error.full_key), names)
        raise ValueError(f"{error.full_key}: {reason}. {near}Keys: {', '.join(names)}.") from error
    assert isinstance(request, Request)
    request.prompt, request.negative = texts["prompt"], texts["negative"]
    check_bounds(request)
    request.check()
    return request
