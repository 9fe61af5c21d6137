"""Freeze a study to its folder, once."""

from omegaconf import OmegaConf

from data.files import write_text
from sweeps.study.config import Study

FREE = ("question", "root", "cluster")  # of a study of any kind


def freeze_study(study: Study) -> None:
    """Write ``study.yaml`` into the study's folder; refuse a folder that holds another study."""
    path = study.folder / "study.yaml"
    text = OmegaConf.to_yaml(OmegaConf.structured(study))
    if path.exists() and _science(path.read_text(), study) != _science(text, study):
        raise ValueError(
            f"study={study.folder}: holds a study with other settings. "
            "Choose another name=... or move the folder away."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _science(text: str, study: Study) -> dict:
    """Return a frozen study without what does not change its runs.

    Keys that the schema got since it was frozen have their defaults, which change nothing.
    """
    defaults = OmegaConf.to_container(OmegaConf.structured(type(study)), enum_to_str=True)
    frozen = OmegaConf.merge(OmegaConf.create(defaults), OmegaConf.create(text))
    config = OmegaConf.to_container(frozen)
    assert isinstance(config, dict)
    return {key: value for key, value in config.items() if key not in (*FREE, *study.free)}
