"""Randomness by name: every draw depends on (seed, purpose, sample key, visit), never on a rank.

Philox is counter-based (Salmon et al. 2011), so a draw needs no state to save or to share.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str, key: str, visit: int) -> np.random.Generator:
    """Return the generator of one purpose for one visit of one sample."""
    name = f"{seed}/{purpose}/{visit}/{key}".encode()
    digest = hashlib.blake2b(name, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def normal(shape: tuple[int, ...], seed: int, purpose: str, key: str, visit: int) -> Tensor:
    """Draw standard normal fp32 values of the given shape."""
    draws = generator(seed, purpose, key, visit).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draws)


def uniform(seed: int, purpose: str, key: str, visit: int) -> float:
    """Draw one uniform value in [0, 1)."""
    return float(generator(seed, purpose, key, visit).random())
