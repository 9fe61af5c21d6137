"""The diffusion transformer once more, in numpy and double precision, one segment and head a time.

Written from the papers' equations, not from models/dit: it takes weights by their names alone.
"""

import math

import numpy as np
from numpy import ndarray

HEAD, THETA, HALF = 16, 100.0, 32  # size of a head, rotary base, sinusoids of each kind
AXES = (2, 3, 3)  # rotary pairs of frame, row and column in a head of 16


def normed(x: ndarray) -> ndarray:
    """Layer norm over the last dimension, without learned parameters."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def silu(x: ndarray) -> ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: ndarray) -> ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def sinusoids(value: float) -> ndarray:
    """32 cosines, then 32 sines, of frequencies from 1 to 30 in equal ratios."""
    frequency = np.array([30 ** (j / (HALF - 1)) for j in range(HALF)])
    return np.concatenate([np.cos(value * frequency), np.sin(value * frequency)])


def rotated(x: ndarray, positions: ndarray) -> ndarray:
    """Turn neighbouring values (S, E) as points of a plane, by angles of their row's position."""
    turned = np.empty_like(x)
    for row, place in enumerate(positions):
        angles = [
            place[axis] * THETA ** (-j / pairs)
            for axis, pairs in enumerate(AXES)
            for j in range(pairs)
        ]
        for i, angle in enumerate(angles):
            a, b = x[row, 2 * i], x[row, 2 * i + 1]
            turned[row, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
            turned[row, 2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return turned


def attended(q: ndarray, k: ndarray, v: ndarray) -> ndarray:
    """Softmax attention of one head: (S, E), (K, E), (K, E) -> (S, E)."""
    weights = np.exp(q @ k.T / math.sqrt(HEAD))
    return weights / weights.sum(-1, keepdims=True) @ v


def block(w: dict, x: ndarray, modulation: ndarray, positions: ndarray, caption: ndarray):
    """Map (S, D) through one block; ``w`` holds its weights."""
    D = x.shape[1]
    shift1, scale1, gate1, shift2, scale2, gate2 = np.split(modulation + w["offset"], 6, -1)
    qkv = (normed(x) * (1 + scale1) + shift1) @ w["self_attention.qkv.weight"].T
    heads = []
    for n in range(D // HEAD):
        q, k, v = (qkv[:, part * D + n * HEAD :][:, :HEAD] for part in range(3))
        q = rotated(normed(q), positions) * w["self_attention.temperature"][n]
        heads.append(attended(q, rotated(normed(k), positions), v))
    x = x + gate1 * (np.concatenate(heads, 1) @ w["self_attention.out.weight"].T)

    q = normed(x) * w["cross_attention.norm.weight"] @ w["cross_attention.q.weight"].T
    k, v = np.split(caption @ w["cross_attention.kv.weight"].T, 2, axis=1)
    heads = []
    for n in range(D // HEAD):
        own = slice(n * HEAD, (n + 1) * HEAD)
        queries = normed(q[:, own]) * w["cross_attention.temperature"][n]
        heads.append(attended(queries, normed(k[:, own]), v[:, own]))
    x = x + np.concatenate(heads, 1) @ w["cross_attention.out.weight"].T

    hidden = (normed(x) * (1 + scale2) + shift2) @ w["mlp.0.weight"].T + w["mlp.0.bias"]
    return x + gate2 * (gelu(hidden) @ w["mlp.2.weight"].T + w["mlp.2.bias"])


def velocity(
    w: dict[str, ndarray],
    depth: int,
    spread: list[float],
    x_t: ndarray,
    t: float | ndarray,
    fps: float,
    positions: ndarray,
    place: ndarray,
    caption: ndarray,
) -> ndarray:
    """Return the velocity (S, V) of one segment; ``caption`` has no rows where there is none.

    t: of all rows, or of each (S,).
    """
    t = np.broadcast_to(t, len(x_t))[:, None]
    sigma = np.array([s for s in spread for _ in range(4)])  # 1x2x2 cells of each channel
    # Moments of x_t = (1 - t) x_0 + t x_1 and of v = x_1 - x_0, for x_1 of deviation sigma.
    variance = (1 - t) ** 2 + t**2 * sigma**2
    skip = (t * sigma**2 - (1 - t)) / variance
    left = 1 + sigma**2 - skip**2 * variance  # variance of v that x_t does not explain

    h = np.stack([np.concatenate([sinusoids(time), sinusoids(fps / 120)]) for time in t[:, 0]])
    h = silu(h @ w["condition.0.weight"].T + w["condition.0.bias"])
    condition = silu(h @ w["condition.2.weight"].T + w["condition.2.bias"])
    modulation = condition @ w["modulation.weight"].T + w["modulation.bias"]
    words = caption if len(caption) else w["null_caption"][None]
    words = words @ w["caption_in.weight"].T + w["caption_in.bias"]

    x = (x_t / np.sqrt(variance)) @ w["patch_in.weight"].T + w["patch_in.bias"]
    x = x + place @ w["place_in.weight"].T
    for i in range(depth):
        own = {n.removeprefix(f"blocks.{i}."): v for n, v in w.items()}
        x = block(own, x, modulation, positions, words)
    shift, scale = np.split(
        condition @ w["head_modulation.weight"].T + w["head_modulation.bias"], 2, -1
    )
    out = (normed(x) * (1 + scale) + shift) @ w["head.weight"].T + w["head.bias"]
    return skip * x_t + np.sqrt(left) * out
