"""Products of blocks in float8, by torchao's layers (the package is optional).

Inputs and weights are rounded to e4m3 and gradients to e5m2, each by one scale a tensor that is
worked out as it is used (Micikevicius et al. 2022, section 3.2); sums are fp32, results bf16.
Weights, their gradients and the optimizer's state stay what they are.
"""

import logging
import warnings
from collections.abc import Collection
from importlib import import_module
from typing import Any

import torch
from torch import nn

from models.architecture import Reads, Role, Specification
from models.kernels import capability_of

CAPABILITY = (8, 9)  # of the first tensor cores that multiply float8


def narrow_products(model: nn.Module, facts: Specification, device: torch.device) -> None:
    """Make every matrix of a block that is multiplied with rows a float8 layer.

    Products with captions are left out: they are few. Raises ValueError where torchao is not
    installed, the device has no such products, or the network no such layers.
    """
    names = {
        name.removesuffix(".weight")
        for name, weight in facts.weights.items()
        if name.startswith("blocks.") and weight.role is Role.matrix and weight.reads is Reads.rows
    }
    held = {name for name in names if not _pruned(model, name)}
    narrow(model, held, device)
    left = sorted(name for name in held if not _is_narrow(model.get_submodule(name)))
    if left:
        raise ValueError(
            f"parallel.products=float8: {left[0]} is no linear layer, which torchao knows alone. "
            "Use parallel.products=own with this model.architecture."
        )


def narrow(model: nn.Module, names: Collection[str], device: torch.device) -> None:
    """Make linear layers of a model compute in float8; ValueError where that cannot be."""
    capability = capability_of(device)
    if capability is not None and capability < CAPABILITY:
        raise ValueError(
            f"parallel.products=float8: needs compute capability {CAPABILITY[0]}.{CAPABILITY[1]}, "
            f"and this device has {capability[0]}.{capability[1]}. Use parallel.products=own."
        )
    torchao = _import_torchao()
    # A weight's gradient sums over rows, of which a rank may hold any number.
    config = torchao.Float8LinearConfig(pad_inner_dim=True)
    torchao.convert_to_float8_training(
        model, config=config, module_filter_fn=lambda _, name: name in names
    )


def _is_narrow(layer: nn.Module) -> bool:
    """Tell a layer of torchao's, whose class is not public, from what it was."""
    return isinstance(layer, nn.Linear) and type(layer) is not nn.Linear


def _pruned(model: nn.Module, name: str) -> bool:
    """Tell whether another pipeline stage holds a layer."""
    block = ".".join(name.split(".")[:2])
    return isinstance(model.get_submodule(block), nn.Identity)


def _import_torchao() -> Any:
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # kernels for other machines that it cannot load
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module("torchao.float8")
    except ImportError as error:
        raise ValueError(
            f"parallel.products=float8: torchao cannot be imported ({error}). "
            "Use pip install 'kinescale[float8]', or parallel.products=own."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
