"""Write the weights of a trained run as one safetensors file that needs nothing else of the run.

usage: kinescale export run=FOLDER out=FILE.safetensors [key=value ...]

examples:
  kinescale export run=runs/demo/runs/grid-... out=model.safetensors
  kinescale export run=runs/demo/runs/grid-... out=small.safetensors dtype=bf16 force=true
keys: kind=ema|param   averaged weights, or those of the last step; default ema
      dtype=fp32|bf16  default fp32
      force=true|false replace a file that exists; default false
The newest good checkpoint is read, whatever layout wrote it. Tensors are whole and have the names
that the network gives them. The file's metadata holds the model's config as JSON (``config``) and
its SHA-256 (``config_sha256``), ``step``, ``run`` (the folder's name), ``kind`` and ``dtype``.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.command_line import unquoted
from data.files import replacing
from data.shell import Refused, command

if TYPE_CHECKING:  # torch takes seconds to import; a wrong key should not
    from torch import Tensor

    from models.config import ModelConfig
    from trainer.checkpoint.write import Loaded

_CHOICES = {"kind": ("ema", "param"), "dtype": ("fp32", "bf16"), "force": ("false", "true")}


@dataclass(frozen=True)
class Export:
    """What to write where; see the module's help."""

    run: Path
    out: Path
    kind: str = "ema"
    dtype: str = "fp32"
    force: bool = False


def parse(argv: list[str]) -> Export:
    """Parse key=value arguments; raise ValueError with the remedy."""
    given = {
        key: unquoted(value) for key, _, value in (argument.partition("=") for argument in argv)
    }
    known = ("run", "out", *_CHOICES)
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{key}={value}: is not a key. Keys: {', '.join(known)}.")
        if key in _CHOICES and value not in _CHOICES[key]:
            choices = " or ".join(_CHOICES[key])
            raise ValueError(f"{key}={value}: must be {choices}. See --help.")
    for key, what in (("run", "a run folder"), ("out", "a file to write")):
        if not given.get(key):
            raise ValueError(f"{key}=: must name {what}. See --help.")
    out, force = Path(given["out"]), given.get("force") == "true"
    if out.is_dir():
        raise ValueError(f"out={out}: must be a file, and is a folder. Name a file in it.")
    if out.exists() and not force:
        raise ValueError(f"out={out}: exists. Choose another name or set force=true.")
    kind, dtype = given.get("kind", "ema"), given.get("dtype", "fp32")
    return Export(Path(given["run"]), out, kind, dtype, force)


def export(wanted: Export) -> None:
    """Read the newest good checkpoint of a run and write the file; raise ValueError or Refused."""
    from trainer.checkpoint.write import load_latest
    from trainer.config import load_run

    model = load_run(wanted.run).model
    loaded = load_latest(wanted.run / "checkpoints")
    if loaded is None:
        raise ValueError(f"run={wanted.run}: has no checkpoint that verifies. Train it first.")
    config = json.dumps(asdict(model), sort_keys=True)
    metadata = {
        "config": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "step": str(loaded.index["step"]),
        "run": wanted.run.resolve().name,
        "kind": wanted.kind,
        "dtype": wanted.dtype,
    }
    _write(wanted.out, _weights(loaded, model, wanted), metadata)


def _weights(loaded: "Loaded", model: "ModelConfig", wanted: Export) -> "dict[str, Tensor]":
    """Read parameter by parameter, so that only what is written is ever held."""
    import torch

    from models.architecture import specification_of

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted.dtype]
    facts = specification_of(model)
    loaded.refuse_others(wanted.kind, facts.shapes)
    return {
        name: loaded.tensor(wanted.kind, name, shape, facts.cuts.get(name)).to(dtype)
        for name, shape in facts.shapes.items()
    }


def _write(out: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(out) as temporary:
            save_file(tensors, temporary, metadata)
    except SafetensorError as error:  # it wraps I/O errors too
        raise Refused(f"out={out}: cannot be written ({error}). Free some space.") from error


@command(__doc__, doing="writing the weights")
def main(argv: list[str]) -> int:
    """Parse the command line and export; print what was written."""
    wanted = parse(argv)
    export(wanted)
    print(wanted.out)
    return 0


if __name__ == "__main__":
    main.run()
