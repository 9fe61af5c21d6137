"""Roles of parameters: each has one, and the rate of a matrix falls with the width."""

import math

import pytest
import torch

from models.architecture import specification_of
from models.config import ModelConfig
from models.dit.model import DiT
from models.roles import Role, role_groups

WIDTHS = [32, 64, 128]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_parameter_has_exactly_one_role(width: int) -> None:
    config = ModelConfig(width=width)
    model = DiT(config)
    names = [name for group in role_groups(model, config) for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("width", WIDTHS)
def test_matrices_and_head_learn_slower_in_wide_models(width: int) -> None:
    config = ModelConfig(width=width, base_width=64)
    scales = {group.role: group.lr_scale for group in role_groups(DiT(config), config)}
    assert scales[Role.matrix] == scales[Role.head] == 64 / width
    assert scales[Role.embedding] == scales[Role.vector] == 1.0


def test_only_what_grows_with_the_width_in_both_sides_is_a_matrix() -> None:
    small, large = (specification_of(ModelConfig(width=w)).weights.values() for w in (32, 64))
    for a, b in zip(small, large, strict=True):
        grows = [wide != narrow for narrow, wide in zip(a.shape, b.shape, strict=True)]
        expected = {
            (True, True): Role.matrix,
            (True, False): Role.embedding,
            (False, True): Role.head,
        }
        assert a.role is expected.get(tuple(grows), Role.vector), a.name


def test_vectors_and_embeddings_never_decay() -> None:
    config = ModelConfig()
    decay = {group.role: group.decay for group in role_groups(DiT(config), config)}
    assert decay == {Role.embedding: False, Role.matrix: True, Role.head: True, Role.vector: False}


def test_initial_weights_have_the_scale_of_their_fan_in_and_the_output_is_zero() -> None:
    model = DiT(ModelConfig(width=128))
    model.reset_parameters(torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith(("qkv.weight", "mlp.0.weight", "mlp.2.weight", "patch_in.weight")):
            expected = 1 / math.sqrt(parameter.shape[1])
            assert parameter.detach().std().item() == pytest.approx(expected, rel=0.05), name
    assert not model.head.weight.any()
    assert not model.modulation.weight.any()
