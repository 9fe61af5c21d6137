"""Freeze a study to its folder, once."""

import os

from omegaconf import OmegaConf

from data.files import write_text
from data.secrets import refuse_secrets, texts_in
from sweeps.study.config import Study
from sweeps.study.y_axis import refuse_late

# Of a study of any kind. The axis changes no run, and has a rule of its own: y_axis.py.
FREE = ("question", "root", "cluster", "y_axis")


def freeze_study(study: Study) -> None:
    """Write ``study.yaml`` into the study's folder.

    Raises ValueError for a folder that holds another study, and for a study that holds a key.
    """
    refuse_other(study)
    path = study.folder / "study.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(study)))


def refuse_other(study: Study) -> None:
    """Raise ValueError where a study's folder holds another one, or the study holds a key."""
    path, config = study.folder / "study.yaml", OmegaConf.structured(study)
    refuse_secrets(texts_in(OmegaConf.to_container(config)), os.environ)
    text = OmegaConf.to_yaml(config)
    if path.exists() and _science(path.read_text(), study) != _science(text, study):
        raise ValueError(
            f"study={study.folder}: holds a study with other settings. "
            "Choose another name=... or move the folder away."
        )
    if path.exists():
        frozen = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(frozen, dict)
        refuse_late(study, {str(key): value for key, value in frozen.items()})


def _science(text: str, study: Study) -> dict:
    """Return a frozen study without what does not change its runs.

    Keys that the schema got since it was frozen have their defaults, which change nothing.
    """
    defaults = OmegaConf.to_container(OmegaConf.structured(type(study)), enum_to_str=True)
    frozen = OmegaConf.merge(OmegaConf.create(defaults), OmegaConf.create(text))
    config = OmegaConf.to_container(frozen)
    assert isinstance(config, dict)
    return {key: value for key, value in config.items() if key not in (*FREE, *study.free)}
