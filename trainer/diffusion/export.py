"""Write the weights of a trained run as safetensors that need nothing else of the run.

usage: kinescale export run=FOLDER out=FILE.safetensors [key=value ...]
       kinescale export run=FOLDER out=FOLDER shard_gb=5 [format=diffusers] [key=value ...]

examples:
  kinescale export run=runs/demo/runs/grid-... out=model.safetensors
  kinescale export run=runs/demo/runs/grid-... out=small.safetensors dtype=bf16 force=true
  kinescale export run=runs/large out=weights shard_gb=5  # weights/model-00001-of-00012.safetensors
  kinescale export run=runs/large out=share format=diffusers  # share/transformer/config.json ...
keys: kind=ema|param   averaged weights, or those of the last step; default ema
      dtype=fp32|bf16  default fp32
      shard_gb=NUMBER  most gigabytes (1e9) of a file: out is a folder with an index of tensors; one
                       tensor may be larger. Default: no bound, or 10 with format=diffusers
      format=plain|diffusers
                       diffusers: a folder with config.json, README.md, transformer/; default plain
      force=true|false replace what exists; default false
The newest good checkpoint is read, whatever layout wrote it. Tensors are whole and have the names
that the network gives them. The metadata of a file, or of the index, holds the model's config as
JSON (``config``) and its SHA-256 (``config_sha256``), ``step``, ``run`` (the folder's name),
``kind`` and ``dtype``.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.command_line import unquoted
from data.files import replacing, write_json, write_text
from data.shell import Refused, command

if TYPE_CHECKING:  # torch takes seconds to import; a wrong key should not
    from torch import Tensor

    from models.architecture import Specification
    from trainer.checkpoint.write import Loaded
    from trainer.config import RunConfig

_CHOICES = {
    "kind": ("ema", "param"),
    "dtype": ("fp32", "bf16"),
    "format": ("plain", "diffusers"),
    "force": ("false", "true"),
}
_DIFFUSERS_GB = 10.0  # diffusers' own bound of a file
_MARK = "README.md"  # of a folder that was exported, which may be replaced


@dataclass(frozen=True)
class Export:
    """What to write where; see the module's help. ``shard_gb`` is 0 for a single file."""

    run: Path
    out: Path
    kind: str = "ema"
    dtype: str = "fp32"
    force: bool = False
    shard_gb: float = 0.0
    format: str = "plain"


def parse(argv: list[str]) -> Export:
    """Parse key=value arguments; raise ValueError with the remedy."""
    given = {
        key: unquoted(value) for key, _, value in (argument.partition("=") for argument in argv)
    }
    known = ("run", "out", *_CHOICES, "shard_gb")
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{key}={value}: is not a key. Keys: {', '.join(known)}.")
        if key in _CHOICES and value not in _CHOICES[key]:
            choices = " or ".join(_CHOICES[key])
            raise ValueError(f"{key}={value}: must be {choices}. See --help.")
    for key, what in (("run", "a run folder"), ("out", "a file to write")):
        if not given.get(key):
            raise ValueError(f"{key}=: must name {what}. See --help.")
    form = given.get("format", "plain")
    shard_gb = _gigabytes(given.get("shard_gb", ""), _DIFFUSERS_GB if form == "diffusers" else 0.0)
    out, force = Path(given["out"]), given.get("force") == "true"
    if shard_gb:
        _refuse_folder(out, force)
    elif out.is_dir():
        raise ValueError(
            f"out={out}: must be a file, and is a folder. Name a file in it, or set shard_gb=5."
        )
    elif out.exists() and not force:
        raise ValueError(f"out={out}: exists. Choose another name or set force=true.")
    kind, dtype = given.get("kind", "ema"), given.get("dtype", "fp32")
    return Export(Path(given["run"]), out, kind, dtype, force, shard_gb, form)


def _gigabytes(text: str, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf or (value == 0 and not text)):
        raise ValueError(f"shard_gb={text}: must be a number above 0. Use for example 5.")
    return value


def _refuse_folder(out: Path, force: bool) -> None:
    """Raise ValueError for a folder that must not be replaced; none that others made ever is."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file()):
        raise ValueError(
            f"out={out}: must be a new folder, or one that export made. Choose another."
        )
    if not force:
        raise ValueError(f"out={out}: exists. Choose another name or set force=true.")


def export(wanted: Export) -> None:
    """Read the newest good checkpoint of a run and write it; raise ValueError or Refused."""
    from models.architecture import specification_of
    from trainer.checkpoint.write import load_latest
    from trainer.config import load_run

    run = load_run(wanted.run)
    loaded = load_latest(wanted.run / "checkpoints")
    if loaded is None:
        raise ValueError(f"run={wanted.run}: has no checkpoint that verifies. Train it first.")
    facts = specification_of(run.model)
    loaded.refuse_others(wanted.kind, facts.shapes)
    weights = _Weights(loaded, facts, wanted.kind, wanted.dtype)
    config = json.dumps(asdict(run.model), sort_keys=True)
    metadata = {
        "config": config,
        "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "step": str(loaded.index["step"]),
        "run": wanted.run.resolve().name,
        "kind": wanted.kind,
        "dtype": wanted.dtype,
        "format": "pt",  # other loaders refuse files whose metadata lacks it
    }
    if not wanted.shard_gb:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        _write(wanted.out, weights.read(list(facts.shapes)), metadata)
        return
    with _replacing_folder(wanted.out) as folder:
        inner, stem = folder, "model"
        if wanted.format == "diffusers":
            inner, stem = folder / "transformer", "diffusion_pytorch_model"
            inner.mkdir()
            write_json(inner / "config.json", _class_of(run) | asdict(run.model))
        files = _write_shards(inner, stem, weights, wanted.shard_gb, metadata)
        write_json(folder / "config.json", _described(run, metadata))
        write_text(folder / _MARK, _readme(wanted, metadata, inner.relative_to(folder), files))


@dataclass(frozen=True)
class _Weights:
    """Parameters of a checkpoint, of which no more is read than is asked for."""

    loaded: "Loaded"
    facts: "Specification"
    kind: str
    dtype: str

    def nbytes(self, name: str) -> int:
        """Return the bytes that a parameter takes in a file."""
        return math.prod(self.facts.shapes[name]) * {"fp32": 4, "bf16": 2}[self.dtype]

    def read(self, names: list[str]) -> "dict[str, Tensor]":
        """Read some parameters."""
        import torch

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[self.dtype]
        shapes, cuts = self.facts.shapes, self.facts.cuts
        return {
            name: self.loaded.tensor(self.kind, name, shapes[name], cuts.get(name)).to(dtype)
            for name in names
        }


@dataclass
class _Shard:
    names: list[str] = field(default_factory=list)
    nbytes: int = 0


def _shards(weights: _Weights, most: float) -> list[_Shard]:
    """Deal parameters, in their order, to files of at most ``most`` bytes where one fits."""
    shards = [_Shard()]
    for name in weights.facts.shapes:
        nbytes = weights.nbytes(name)
        if shards[-1].names and shards[-1].nbytes + nbytes > most:
            shards.append(_Shard())
        shards[-1].names.append(name)
        shards[-1].nbytes += nbytes
    return shards


def _write_shards(
    folder: Path, stem: str, weights: _Weights, shard_gb: float, metadata: dict[str, str]
) -> list[str]:
    """Write files one after another, and an index of which tensor lies in which; return names."""
    shards = _shards(weights, shard_gb * 1e9)
    names: list[str] = []
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        names.append(f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors")
        _write(folder / names[-1], weights.read(shard.names), metadata)
        places |= dict.fromkeys(shard.names, names[-1])
    total = {"total_size": sum(shard.nbytes for shard in shards)}
    write_json(
        folder / f"{stem}.safetensors.index.json",
        {"metadata": total | metadata, "weight_map": places},
    )
    return names


def _class_of(run: "RunConfig") -> dict[str, str]:
    return {"_class_name": "models.network.build_network", "architecture": run.model.architecture}


def _described(run: "RunConfig", metadata: dict[str, str]) -> dict[str, Any]:
    """Return what whoever draws with the weights must know beside them."""
    known = {key: value for key, value in metadata.items() if key != "config"}
    parts = {name: asdict(getattr(run, name)) for name in ("model", "codec", "text", "objective")}
    return known | parts


def _readme(wanted: Export, metadata: dict[str, str], inner: Path, files: list[str]) -> str:
    where = "" if inner == Path() else f' / "{inner}"'
    return f"""# Weights of {metadata["run"]}

{metadata["kind"]} weights of step {metadata["step"]} in {metadata["dtype"]}.
{len(files)} safetensors file(s) with an index of tensors. `config.json` holds the
model, the compression network, the text encoder and the objective that they were trained with.
Nothing here is pickled.

```python
import json
from pathlib import Path

from safetensors.torch import load_file

from models.config import ModelConfig
from models.network import build_network
from models.objective import build_objective
from trainer.config import ObjectiveConfig

folder = Path("{wanted.out.name}")
weights = folder{where}
index = json.loads(next(weights.glob("*.safetensors.index.json")).read_text())
about = json.loads((folder / "config.json").read_text())
objective = build_objective(ObjectiveConfig(**about["objective"]))
model = build_network(ModelConfig(**about["model"]), precondition=objective.coefficients)
state = {{}}
for file in sorted(set(index["weight_map"].values())):
    state |= load_file(weights / file)
model.load_state_dict(state)
```

`models` and `trainer` are packages of kinescale. The network predicts what `objective` says, of the
latents of `codec`; `kinescale generate` draws clips from the run itself.
"""


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` that takes its name once it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    made, old = (out.with_name(f".{out.name}.{end}") for end in ("unfinished", "replaced"))
    for leftover in (made, old):
        shutil.rmtree(leftover, ignore_errors=True)
    made.mkdir()
    try:
        yield made
        if out.exists():
            out.rename(old)
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write(out: Path, tensors: "dict[str, Tensor]", metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

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
