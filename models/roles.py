"""What a parameter is for decides how fast it learns and whether it decays.

Maximal-update roles (Yang et al. 2022, Tensor Programs V, table 8, Adam column): matrices and the
head learn at lr * base_width / width, embeddings, norms and biases at lr, so that a learning rate
stated at ``base_width`` keeps its meaning at another width.
"""

from dataclasses import dataclass

from torch import nn

from models.architecture import Role, specification_of
from models.config import ModelConfig


@dataclass(frozen=True)
class RoleGroup:
    """Named parameters of one role with their multipliers."""

    role: Role
    names: list[str]
    lr_scale: float
    decay: bool


def role_groups(model: nn.Module, config: ModelConfig) -> list[RoleGroup]:
    """Sort the parameters that a network (or a stage of it) holds into roles, in their order."""
    width_scale = config.base_width / config.width
    weights = specification_of(config).weights
    names: dict[Role, list[str]] = {role: [] for role in Role}
    for name, _ in model.named_parameters():
        names[weights[name].role].append(name)
    scales = {
        Role.embedding: (1.0, False),
        Role.matrix: (width_scale, True),
        Role.head: (width_scale, True),
        Role.vector: (1.0, False),
    }
    return [RoleGroup(role, names[role], *scales[role]) for role in Role if names[role]]
