"""Pieces of parameters: what of a network's weights one rank owns; torch-free."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fragment:
    """A flat piece of one parameter that this rank owns; the tensors are views, write in place.

    name: of the parameter; part, parts: which tensor part of it, of how many (0 of 1: all of it).
    start: first element in the flattened part.
    tensors: ``param`` (fp32 master), ``exp_avg`` and ``exp_avg_sq``, all of one length.
    """

    name: str
    start: int
    tensors: "dict[str, Tensor]"
    part: int = 0
    parts: int = 1
