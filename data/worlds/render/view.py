"""The perspective camera in arithmetic: world points to pixels, silhouettes and boxes.

A camera at heading 0 looks along +y with +x to its right and +z up; headings turn counter-clockwise
seen from above, pitch looks up. Pixel (row i, column j) covers [j, j + 1) x [i, i + 1).
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from data.worlds.truth import DECIMALS

NEAR = 0.2


class Pose(NamedTuple):
    """Where a camera is: world units and degrees, exact to three decimals."""

    x: float
    y: float
    z: float
    heading: float
    pitch: float
    roll: float = 0.0


def look_at(eye: tuple[float, ...], target: tuple[float, ...]) -> Pose:
    """Return the pose of a level camera that looks from a point at another, rounded as stored."""
    dx, dy, dz = (b - a for a, b in zip(eye, target, strict=True))
    heading = math.degrees(math.atan2(-dx, dy))
    pitch = math.degrees(math.atan2(dz, math.hypot(dx, dy)))
    x, y, z = eye
    return Pose(*(round(v, DECIMALS) for v in (x, y, z, heading, pitch)))


def view_axes(pose: Pose) -> Float[np.ndarray, "3 3"]:
    """Return the camera's right, forward and up axes in world axes, as rows."""
    h, p, r = np.radians([pose.heading, pose.pitch, pose.roll])
    right = np.array([math.cos(h), math.sin(h), 0.0])
    forward = np.array([-math.sin(h) * math.cos(p), math.cos(h) * math.cos(p), math.sin(p)])
    up = np.array([math.sin(h) * math.sin(p), -math.cos(h) * math.sin(p), math.cos(p)])
    turned = math.cos(r) * right - math.sin(r) * up
    return np.stack([turned, forward, math.cos(r) * up + math.sin(r) * right])


def fov_of(min_degrees: float, height: int, width: int) -> tuple[float, float]:
    """Return (horizontal, vertical) degrees where the shorter side sees ``min_degrees``."""
    half = math.tan(math.radians(min_degrees) / 2)
    short = min(height, width)
    return (
        2 * math.degrees(math.atan(half * width / short)),
        2 * math.degrees(math.atan(half * height / short)),
    )


def project(
    points: Float[np.ndarray, "N 3"],
    pose: Pose,
    fov_degrees: tuple[float, float],
    height: int,
    width: int,
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, " N"]]:
    """Project world points: pixels (x, y) and the depth along the view; behind is depth <= 0."""
    seen = (points - np.array(pose[:3])) @ view_axes(pose).T
    depth = seen[:, 1]
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    half_x, half_y = (math.tan(math.radians(a) / 2) for a in fov_degrees)
    x = width / 2 * (1 + seen[:, 0] / safe / half_x)
    y = height / 2 * (1 - seen[:, 2] / safe / half_y)
    return np.stack([x, y], 1), depth


def outline(pixels: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "E 2"]:
    """Return the convex outline of projected points, which is the silhouette of a convex body."""
    return cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(np.float64)


def cover(
    polygon: Float[np.ndarray, "E 2"], height: int, width: int
) -> tuple[slice, slice, Bool[np.ndarray, "h w"]]:
    """Return the window of a convex polygon in the frame and which pixel centres lie inside."""
    x0, y0 = np.clip(np.floor(polygon.min(0)), 0, (width, height)).astype(int)
    x1, y1 = np.clip(np.ceil(polygon.max(0)), 0, (width, height)).astype(int)
    if len(polygon) < 3 or y1 <= y0 or x1 <= x0:
        return slice(y0, y0), slice(x0, x0), np.zeros((0, 0), bool)
    x = np.arange(x0, x1) + 0.5
    y = np.arange(y0, y1) + 0.5
    (ax, ay), (bx, by) = (ends.T[:, :, None] for ends in (polygon, np.roll(polygon, -1, 0)))
    rise = np.where(by == ay, 1.0, by - ay)
    crossing = ax + (y - ay) * (bx - ax) / rise  # (E, h): where an edge crosses a row of centres
    met = (np.minimum(ay, by) <= y) & (y <= np.maximum(ay, by)) & (by != ay)
    left = np.where(met, crossing, np.inf).min(0)[:, None]
    right = np.where(met, crossing, -np.inf).max(0)[:, None]
    return slice(y0, y1), slice(x0, x1), (left <= x) & (x <= right)


def share_inside(box: list[float], height: int, width: int) -> float:
    """Return the share of a box's area inside the frame."""
    x0, y0, x1, y1 = box
    area = (x1 - x0) * (y1 - y0)
    across = max(0.0, min(x1, width) - max(x0, 0.0))
    down = max(0.0, min(y1, height) - max(y0, 0.0))
    return min(1.0, across * down / area) if area > 0 else 0.0
