"""What a command line or a file asks to draw."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.bounds import check_bounds
from data.command_line import read_json
from data.keys import guess
from trainer.generate.request import PATH_KEYS, Request
from trainer.generate.tasks import settled

# Text is taken as it stands: "a cube: red" is a prompt, not YAML.
_TEXTS = ("prompt", "negative", "source_prompt", *PATH_KEYS)
_TEXT_KEYS = ("run", "requests", "out", *_TEXTS)


def take_axes(argv: list[str]) -> tuple[list[str], int, int]:
    """Take ``tp=`` and ``cp=`` out of arguments: how many ranks hold a network together."""
    axes, rest = {"tp": 1, "cp": 1}, []
    for argument in argv:
        key, _, value = argument.partition("=")
        if key not in axes:
            rest.append(argument)
            continue
        if not value.isdigit() or not int(value):
            raise ValueError(f"{key}={value}: must be a number of processes. Use {key}=1.")
        axes[key] = int(value)
    return rest, axes["tp"], axes["cp"]


def parse(argv: list[str]) -> tuple[Path, list[Request], int]:
    """Parse key=value arguments into a run folder, requests and the token budget of a pack.

    Beside a file of requests, keys are defaults of all of them.
    """
    pairs = [argument.partition("=") for argument in argv]
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
    requests = [request_of(given | entry) for entry in entries]
    files = [path for request in requests for path in request.files]
    if twice := [path for path in files if files.count(path) > 1]:
        raise ValueError(f"out={twice[0]}: is written by two requests. Name another file.")
    return Path(folder), requests, budget


def request_of(entry: dict[str, Any]) -> Request:
    """Return the request of keys and values. Raises ValueError on one that cannot be."""
    texts = {key: entry.get(key, "") for key in _TEXTS}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{key}={text}: must be text. See --help.")
    plain = {key: value for key, value in entry.items() if key not in texts}
    try:
        request = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Request), plain))
    except OmegaConfBaseException as error:
        names = [f.name for f in fields(Request)]
        key = re.split(r"[.\[]", str(error.full_key))[0]  # of frames[0]: frames
        said = f"{key}={entry.get(key)}"
        if key not in names:
            keys = f"{guess(key, names)}Keys: {', '.join(names)}."
            raise ValueError(f"{said}: is no key of a request. {keys}") from error
        reason = str(error).splitlines()[0]
        raise ValueError(f"{said}: {reason[:1].lower()}{reason[1:]}. See --help.") from error
    assert isinstance(request, Request)
    for key, text in texts.items():
        setattr(request, key, text)
    check_bounds(request)
    request.check()
    return settled(request, set(entry))
