"""What a parameter is for decides how it starts, how fast it learns and whether it decays.

Maximal-update roles (Yang et al. 2022, Tensor Programs V, table 8, Adam column): matrices and the
head learn at lr * base_width / width, embeddings, norms and biases at lr, so that a learning rate
stated at ``base_width`` keeps its meaning at another width.
"""

from dataclasses import dataclass
from enum import StrEnum

from torch import nn

from models.config import ModelConfig


class Role(StrEnum):
    """Roles of parameters."""

    embedding = "embedding"  # from a fixed-size input to the width
    matrix = "matrix"  # from width to width
    head = "head"  # from the width to a fixed-size output
    vector = "vector"  # norms, biases, offsets, learned tokens


@dataclass(frozen=True)
class RoleGroup:
    """Named parameters of one role with their multipliers."""

    role: Role
    names: list[str]
    lr_scale: float
    decay: bool


_EMBEDDINGS = ("patch_in.", "place_in.", "condition.0.", "caption_in.")


def role_of(name: str, parameter: nn.Parameter) -> Role:
    """Return the role of a parameter of ``models.dit.model.DiT``."""
    if parameter.ndim < 2:
        return Role.vector
    if name.startswith(_EMBEDDINGS):
        return Role.embedding
    return Role.head if name.startswith("head.") else Role.matrix


def role_groups(model: nn.Module, config: ModelConfig) -> list[RoleGroup]:
    """Sort the parameters of a DiT into roles, in the order of ``named_parameters``."""
    width_scale = config.base_width / config.width
    names: dict[Role, list[str]] = {role: [] for role in Role}
    for name, parameter in model.named_parameters():
        names[role_of(name, parameter)].append(name)
    scales = {
        Role.embedding: (1.0, False),
        Role.matrix: (width_scale, True),
        Role.head: (width_scale, True),
        Role.vector: (1.0, False),
    }
    return [RoleGroup(role, names[role], *scales[role]) for role in Role if names[role]]
