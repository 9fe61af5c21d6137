"""One specification: it tells of the network what the network itself shows, and finds its file."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.architecture import (
    Reads,
    architecture_names,
    check_model,
    find_architecture,
    matrix,
    specification_of,
)
from models.architectures import dit
from models.config import ModelConfig
from models.network import build_network

CONFIGS = [
    ModelConfig(),
    ModelConfig(width=48, depth=3, head_dim=12, mlp_ratio=3, text_width=20, time_features=10),
    ModelConfig(width=96, depth=1, head_dim=32, values_per_token=48, spread=[0.5] * 12),
]


@pytest.mark.parametrize("name", architecture_names())
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"w{config.width}d{config.depth}")
def test_the_specification_names_the_parameters_of_the_network(
    name: str, config: ModelConfig
) -> None:
    config.architecture = name
    with torch.device("meta"):
        network = build_network(config)
    found = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert list(found.items()) == list(specification_of(config).shapes.items())


def test_every_matrix_says_what_it_is_multiplied_with() -> None:
    for weight in specification_of(ModelConfig()).weights.values():
        assert (weight.reads is Reads.nothing) == (len(weight.shape) == 1), weight.name


def test_a_share_of_a_matrix_counts_as_that_many_products() -> None:
    # Two of eight experts, say.
    experts = matrix("experts", 8 * 64, 16, "mlp", share=0.25)
    assert experts.products == 2 * 64 * 16
    assert experts.size == 8 * 64 * 16


@pytest.mark.parametrize("wrong", ["other shape", "missing", "surplus"])
def test_a_network_that_is_not_its_specification_is_not_built(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: ModelConfig, *parts: Any) -> torch.nn.Module:
        network = dit.build(config, *parts)
        if wrong == "missing":
            network.null_caption = None
        elif wrong == "surplus":
            network.tail = torch.nn.Parameter(torch.zeros(3))
        else:
            network.head = torch.nn.Linear(config.width, 7)
        return network

    monkeypatch.setattr(dit, "ARCHITECTURE", replace(dit.ARCHITECTURE, build=build))
    name = {"missing": "null_caption", "surplus": "tail", "other shape": "head.weight"}[wrong]
    with torch.device("meta"), pytest.raises(ValueError, match=f"dit: parameter {name} has shape"):
        build_network(ModelConfig())


def test_equal_sizes_share_one_specification_and_others_do_not() -> None:
    assert specification_of(ModelConfig()) is specification_of(ModelConfig())
    assert specification_of(ModelConfig(depth=3)) is not specification_of(ModelConfig())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mmdit", "model.architecture=mmdit: is not known. Use one of dit"),
        ("tests.nobody", "model.architecture=tests.nobody: there is no such module. Put"),
        ("antigravity.x", "module of your own, which only the environment may allow. Use export "),
        ("tests.conftest", "model.architecture=tests.conftest: the module holds no ARCHITECTURE"),
        ("../dit", "model.architecture=../dit: is not known. Use one of dit"),
    ],
)
def test_an_unknown_architecture_is_refused_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        find_architecture(name)


def test_an_option_that_the_architecture_does_not_read_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"model.options.experts=8.*not an option.*Options: base_depth"
    ):
        check_model(ModelConfig(options={"experts": 8}))
