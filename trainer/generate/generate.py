"""Generate clips and images of any shape from a trained run.

usage: kinescale generate run=FOLDER prompt=TEXT out=FILE.mp4 [key=value ...]
       kinescale generate run=FOLDER requests=FILE.json

examples:
  kinescale generate run=runs/demo/runs/grid-... prompt="a red cube on a green floor" \\
      out=cube.mp4 num_frames=17 height=128 width=128
keys: num_frames=17 height=128 width=128 fps=12 seed=0 steps=16 guidance=2.0 shift=2.0 spacing=even
spacing=trained looks where the run's density of training times has its mass.
A request file is a list of such settings, each with its own ``out``; they are sampled side by side
in one pack. ``reference: {root, split, key}`` writes a stored clip through the codec instead, which
is the best that any model on this codec can show. One frame writes a PNG. The noise depends on
(seed, prompt, shape) alone, so two runs given the same request start from the same noise.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, MultipleOf
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import Doc

from data.bounds import check_bounds
from data.command_line import read_json
from data.dataset.shards import read_index
from data.files import write_bytes
from data.loading.batch import Sample
from data.loading.loader import SampleReader
from data.media.h264 import encode_h264, encode_png
from data.notices import doing
from data.shell import command
from models.architecture import specification_of
from models.config import TextConfig
from models.dit.embed import unpatchify
from models.network import Network, build_network
from models.objective import Spacing, build_objective
from trainer.checkpoint.write import load_latest
from trainer.config import CaptionUse, RunConfig, Seed, load_run
from trainer.diffusion.collate import Collator
from trainer.rng import normal

_TEXT_KEYS = ("run", "requests", "out", "prompt")
_STORED = {"root", "split", "key"}


@dataclass
class Request:
    """One clip to make; see the module's help."""

    out: Annotated[str, Doc("File to write, .mp4, or .png for one frame.")] = ""
    prompt: Annotated[str, Doc("What to show.")] = ""
    num_frames: Annotated[int, Ge(1), Doc("Frames, 1 + k * codec.stride[0].")] = 17
    height: Annotated[int, Ge(2), MultipleOf(2), Doc("Pixels from top to bottom.")] = 128
    width: Annotated[int, Ge(2), MultipleOf(2), Doc("Pixels from left to right.")] = 128
    fps: Annotated[float, Gt(0), Le(120), Doc("Frames a second.")] = 12.0
    seed: Annotated[Seed, Doc("Decides the noise, with prompt and shape.")] = 0
    steps: Annotated[int, Ge(1), Le(1000), Doc("Steps of the sampler.")] = 16
    guidance: Annotated[
        float, Ge(0), Doc("Weight of the prompt against no prompt; 1 leaves guidance out.")
    ] = 2.0
    shift: Annotated[
        float,
        Ge(0),
        Doc(
            "Times are spaced finer near noise above 1, finer near data below; 0 is the shift that "
            "training gave clips of this length (objective.shift_tokens, most_shift)."
        ),
    ] = 2.0
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

    def check(self) -> None:
        """Raise ValueError on values that cannot be sampled."""
        rules = {
            "out": (bool(self.out), "name a file"),
            "reference": (set(self.reference) in (set(), _STORED), "hold root, split and key"),
        }
        for key, (ok, rule) in rules.items():
            if not ok:
                raise ValueError(f"{key}={getattr(self, key)}: must {rule}. See --help.")


def load_model(folder: Path) -> tuple[RunConfig, Network]:
    """Load a run's config and its averaged weights from its newest good checkpoint."""
    run = load_run(folder)
    loaded = load_latest(folder / "checkpoints")
    if loaded is None:
        raise ValueError(f"run={folder}: has no checkpoint. Train it first.")
    predicts, facts = build_objective(run.objective).coefficients, specification_of(run.model)
    model = build_network(run.model, precondition=predicts).requires_grad_(False)
    model.load_state_dict(loaded.tensors("ema", facts.shapes, facts.cuts))
    return run, cast(Network, model)


def generate(run: RunConfig, model: Network, requests: list[Request]) -> list[np.ndarray]:
    """Sample all requests side by side; return uint8 frames (F, H, W, 3) for each.

    Requests that are sampled together must agree on steps, guidance, shift and spacing.
    """
    settings = {(r.steps, r.guidance, r.shift, r.spacing.value) for r in requests}
    if len(settings) != 1:
        raise ValueError(
            f"steps,guidance,shift,spacing={sorted(settings)}: must agree within a request file. "
            "Split it."
        )
    first, collator = requests[0], Collator(run.codec, run.text)
    items = [collator.blank(r.shape, r.fps, r.prompt) for r in requests]
    pack = collator.pack(items, [CaptionUse.dense] * len(items))
    noise = [
        normal(tuple(item.tokens.shape), r.seed, "generate", f"{r.prompt}/{item.size}", 0)
        for item, r in zip(items, requests, strict=True)
    ]
    objective = build_objective(run.objective)
    x_1 = objective.sample(
        model, pack, torch.cat(noise), first.steps, first.guidance, first.shift, first.spacing
    )
    clips = []
    for item, r, tokens in zip(items, requests, torch.split(x_1, pack.lengths), strict=True):
        frames = collator.codec.decode(unpatchify(tokens, *item.size), r.height, r.width)
        clips.append(frames.numpy())
    return clips


def write_reference(run: RunConfig, request: Request) -> np.ndarray:
    """Return a stored clip through the codec and back, uint8 (F, H, W, 3)."""
    where = request.reference
    infos = [i for i in read_index(where["root"], where["split"]) if i.key == where["key"]]
    if not infos:
        raise ValueError(f"reference.key={where['key']}: is not in {where['split']}.")
    data = replace(run.data, root=where["root"])
    reader = SampleReader(data, where["split"], infos)
    try:
        found = reader.read([(infos[0], 0)])[0]
    finally:
        reader.close()
    if not isinstance(found, Sample):
        raise found
    encoded = Collator(run.codec, TextConfig()).codec
    latent = found.latent
    if latent is None:
        assert found.frames is not None
        latent = encoded.encode(found.frames)
    return encoded.decode(latent.float(), infos[0].height, infos[0].width).numpy()


def write_clip(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames as MP4, or one frame as PNG."""
    payload = encode_png(frames[0]) if len(frames) == 1 else encode_h264(frames, fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, payload)


def parse(argv: list[str]) -> tuple[Path, list[Request]]:
    """Parse key=value arguments into a run folder and requests."""
    pairs = [argument.partition("=") for argument in argv]
    # Text is taken as it stands: "a cube: red" is a prompt, not YAML.
    given: dict[str, Any] = {key: value for key, _, value in pairs if key in _TEXT_KEYS}
    others = [argument for argument in argv if argument.partition("=")[0] not in _TEXT_KEYS]
    parsed = OmegaConf.to_container(OmegaConf.from_dotlist(others))
    given |= {str(key): value for key, value in dict(parsed).items()}  # type: ignore[arg-type]
    folder = given.pop("run", None)
    if not folder:
        raise ValueError("run=: must name a run folder. See --help.")
    file = given.pop("requests", None)
    entries = read_json(Path(file), "requests") if file else [given]
    requests = [_request(entry) for entry in entries]
    return Path(folder), requests


def _request(entry: dict[str, Any]) -> Request:
    entry = dict(entry)
    prompt = entry.pop("prompt", "")
    if not isinstance(prompt, str):
        raise ValueError(f"prompt={prompt}: must be text. See --help.")
    try:
        request = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Request), entry))
    except OmegaConfBaseException as error:
        known = ", ".join(f.name for f in fields(Request))
        reason = str(error).splitlines()[0]
        raise ValueError(f"{error.full_key}: {reason}. Keys: {known}.") from error
    assert isinstance(request, Request)
    request.prompt = prompt
    check_bounds(request)
    request.check()
    return request


@command(__doc__, kept="clips that are named above are written. Run the same command again.")
def main(argv: list[str]) -> int:
    """Parse the command line, sample and write; print what was written."""
    folder, requests = parse(argv)
    with doing(f"loading {folder}"):
        run, model = load_model(folder)
    with doing(f"drawing {len(requests)} clip{'s' * (len(requests) > 1)}"):
        clips = {id(r): write_reference(run, r) for r in requests if r.reference}
        wanted = [r for r in requests if not r.reference]
        if wanted:
            made = generate(run, model, wanted)
            clips |= {id(r): c for r, c in zip(wanted, made, strict=True)}
    for request in requests:
        write_clip(Path(request.out), clips[id(request)], request.fps)
        print(request.out)
    return 0
