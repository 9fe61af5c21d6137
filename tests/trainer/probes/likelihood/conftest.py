"""Tiny runs that saw the strip, lawful and not: two steps on eight clips."""

from pathlib import Path

import pytest

from trainer.config import RunConfig

from ...conftest import compose_smoke
from ...tiny_runs import train_tiny, write_tiny

SHAPE = ("codec=pixels", "model.width=48", "model.depth=1", "horizon.steps=2")


def strip_config(latents: Path, *overrides: str) -> RunConfig:
    """Compose a run on strips of pixels."""
    return compose_smoke(latents, *SHAPE, "validation.splits=[val_worlds]", *overrides)


def train_strips(folder: Path, *overrides: str, lawless: str = "") -> Path:
    """Train a run on strips; return its folder."""
    run = strip_config(folder / "data", *overrides)
    write_tiny(folder / "data", run.codec, lawless=lawless)
    return train_tiny(run, folder / "run")


@pytest.fixture(scope="session")
def strips(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that saw lawful strips."""
    return train_strips(tmp_path_factory.mktemp("strips"))


@pytest.fixture(scope="session")
def lawless_strips(group: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of its twin."""
    return train_strips(tmp_path_factory.mktemp("lawless"), lawless="all")
