"""The least loss of any budget from those near it: laws of compute alone, fitted close by.

A law of (params, tokens) must hold over a whole table, warm-up and all, to be right at its end.
These look at the least losses only, and at the nearest budgets most:

* E + A C^-a, budgets weighed by half an octave away from the target, and by half two octaves away
  for a slower one;
* A C^-a through the three nearest.

The forecast is their median. Over real isoFLOP tables no member alone, nor the member that did
best so far, errs less (`python -m benchmarks.fit forecast`).
"""

import numpy as np

from sweeps.fit.forms.base import Array

HALVES = (1.0, 0.5)  # octaves of compute after which a budget counts half
NEAREST = 3
EXPONENTS = np.geomspace(0.005, 1.5, 120)
NAMES = (*(f"floor, half weight in {half:g} octaves" for half in HALVES), "power of the nearest 3")


def nearby_losses(compute: Array, loss: Array, target: float) -> Array:
    """Return what each member says of the least loss at `target` FLOPs, `(K, M)`.

    Args:
        compute: FLOPs of the budgets, `(B,)`, at least two.
        loss: their least losses in each of K redraws, `(K, B)`.
    """
    octaves = np.log2(compute / target)
    power = _power(octaves, loss)
    if len(compute) < NEAREST:
        return power[:, None]
    floors = [_floor(octaves, loss, half) for half in HALVES]
    return np.stack([*floors, power], axis=1)


def median_loss(compute: Array, loss: Array, target: float) -> Array:
    """Return the median of the members at `target` FLOPs, `(K,)`; arguments as `nearby_losses`."""
    return np.median(nearby_losses(compute, loss, target), axis=1)


def floor_loss(compute: Array, loss: Array, target: float) -> Array:
    """Return E + A C^-a through all budgets alike at `target` FLOPs, `(K,)`."""
    return _floor(np.log2(compute / target), loss, np.inf)


def _power(octaves: Array, loss: Array) -> Array:
    """Return A C^-a through the nearest budgets at the target, `(K,)`."""
    rows = np.argsort(np.abs(octaves), kind="stable")[:NEAREST]
    design = np.stack([np.ones(len(rows)), octaves[rows]], axis=1)
    return np.asarray(np.exp(np.log(loss[:, rows]) @ np.linalg.pinv(design)[0]))


def _floor(octaves: Array, loss: Array, half: float) -> Array:
    """Return E + A C^-a, by weighted least squares of the relative error, at the target, `(K,)`.

    At a fixed exponent E and A are linear; E may not be negative.
    """
    distance = np.abs(octaves) - np.abs(octaves).min()
    weight = 0.5 ** (distance / half) / np.exp(2 * np.log(loss).mean(axis=0))  # (B,)
    terms = 2.0 ** (-EXPONENTS[:, None] * octaves)  # (G, B), 1 at the target
    s0, s1, s2 = weight.sum(), terms @ weight, (terms * terms) @ weight
    t0, t1 = loss @ weight, loss @ (terms * weight).T  # (K,), (K, G)
    spread = s0 * s2 - s1 * s1
    floor = (s2 * t0[:, None] - s1 * t1) / np.maximum(spread, 1e-300)
    part = (s0 * t1 - s1 * t0[:, None]) / np.maximum(spread, 1e-300)
    bare = (floor < 0) | (spread < 1e-12 * s0 * s2)
    floor, part = np.where(bare, 0.0, floor), np.where(bare, t1 / s2, part)
    cost = floor * floor * s0 + 2 * floor * part * s1 + part * part * s2
    cost = cost - 2 * floor * t0[:, None] - 2 * part * t1
    cost = np.where(part < 0, np.inf, cost)
    return _at_least(cost, floor + part)


def _at_least(cost: Array, value: Array) -> Array:
    """Return `value` where `cost` is least over the grid of exponents, both `(K, G)`: `(K,)`.

    Between the points of the grid both are parabolas.
    """
    best = np.clip(np.argmin(cost, axis=1), 1, cost.shape[1] - 2)[:, None] + np.array([-1, 0, 1])
    c, v = (np.take_along_axis(each, best, axis=1).T for each in (cost, value))
    with np.errstate(invalid="ignore", divide="ignore"):
        bend = c[0] - 2 * c[1] + c[2]
        move = np.clip(0.5 * (c[0] - c[2]) / bend, -1, 1)
    move = np.where(np.isfinite(bend) & (bend > 0), move, np.argmin(c, axis=0) - 1)
    return np.asarray(v[1] + move * (v[2] - v[0]) / 2 + move**2 * (v[0] - 2 * v[1] + v[2]) / 2)
