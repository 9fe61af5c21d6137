"""What defines an experiment: its identity, its folder's name, its frozen config."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trainer.codec.files import fingerprint
from trainer.compose import freeze_as, hashed_name
from trainer.config import RunConfig, load_run
from trainer.layout.config import Precision, Products

_SECTIONS = ("model", "text", "objective", "optim", "horizon", "validation", "data")
_SET = object()  # equals no value of a key


def identity(run: RunConfig) -> dict[str, Any]:
    """Return what defines the experiment, whatever machine carries it out."""
    config = {key: _plain(getattr(run, key)) for key in _SECTIONS}
    chosen = {key: _said(config[key], _LATER.get(key, {})) for key in _SECTIONS if key != "data"}
    chosen |= {"codec": fingerprint(run.codec), "seed": run.seed}
    if run.branch.run:
        chosen["branch"] = {"run": Path(run.branch.run).name, "step": run.branch.step}
    planning = ("train_split", "pack_tokens", "packs_per_step", "max_segments", "pool")
    chosen["data"] = {key: config["data"][key] for key in planning}
    chosen["data"]["name"] = _data_name(run.data.root)
    # Left out where they have no effect, so that earlier runs keep their names.
    for key in ("in_order", "shuffle_shards", "limit"):
        if config["data"][key]:
            chosen["data"][key] = config["data"][key]
    # Arithmetic is no layout: another one gives other losses, and must not resume these.
    if run.parallel.precision is not Precision.fp32:
        chosen["precision"] = run.parallel.precision.value
    if run.parallel.widens_gradients:
        chosen["gradients"] = run.parallel.gradients.value
    if run.parallel.products is not Products.own:
        chosen["products"] = run.parallel.products.value
    if run.data.mixture:
        chosen["data"]["mixture"] = [
            asdict(member) | {"root": _data_name(member.root)} for member in run.data.mixture
        ]
    return chosen


# Keys that came later, with what they were before they could be set: left out where they still are
# that, so that earlier runs keep their names.
_LATER: dict[str, dict[str, Any]] = {
    "model": {"architecture": "dit", "draws": "stream", "options": {}},
    "optim": {"decay_by_width": True, "kind": "adamw", "momentum": 0.95},
    "objective": {
        "kind": "flow",
        "most_shift": 0.0,
        "density": [],
        "spread": 0.0,
        "stratified": False,
        "prediction": "velocity",
        "weight": "uniform",
        "t_range": [0.0, 1.0],
        "tasks": {},
        "options": {},
    },
}


def _plain(section: Any) -> dict[str, Any]:
    """Return a section as its frozen config has it; a whole run would take three times as long."""
    found = OmegaConf.to_container(OmegaConf.structured(section), enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _said(section: Any, unset: dict[str, Any]) -> Any:
    if not unset:
        return section
    return {key: value for key, value in section.items() if unset.get(key, _SET) != value}


def _data_name(root: str) -> str:
    return "/".join(Path(root).parts[-2:])


def run_name(run: RunConfig) -> str:
    """Return the folder name: a readable prefix and the hash of the experiment; never parsed."""
    return hashed_name(run.name, identity(run))


def freeze(run: RunConfig, folder: Path) -> None:
    """Write ``config.yaml`` into a run folder, or check that what it holds is this experiment."""
    freeze_as(run, folder, load_run, identity)
