"""Shots: cameras that take turns within one clip, cut where latents begin."""

from itertools import pairwise

import numpy as np

from data.worlds.render.setting import CameraPath
from data.worlds.render.stage import Shot
from data.worlds.render.view import look_at


def plan_shots(paths: list[CameraPath], cuts: list[int], num_frames: int) -> list[Shot]:
    """Give every camera its frames: a shot per path, cut at the frames of ``cuts``."""
    edges = [0, *cuts, num_frames]
    shots = []
    for path, (start, stop) in zip(paths, pairwise(edges), strict=True):
        places = [path.place(n / max(1, stop - start - 1)) for n in range(stop - start)]
        shots.append(Shot(start, stop, path.words(), [look_at(*place) for place in places]))
    return shots


def choose_cuts(rng: np.random.Generator, num_frames: int, num_shots: int) -> list[int]:
    """Choose the first frames of later shots, all 1 + 4k, so that every latent holds one shot.

    Raises ValueError where the clip is too short for so many shots.
    """
    allowed = np.arange(5, num_frames, 4)
    if num_shots < 1 or num_shots - 1 > len(allowed):
        raise ValueError(
            f"num_shots={num_shots}: a clip of {num_frames} frames has at most "
            f"{len(allowed) + 1}. Use fewer shots or more frames."
        )
    return sorted(rng.choice(allowed, num_shots - 1, replace=False).tolist())
