"""Meshes and textures for panda3d, built from arithmetic: no asset files."""

import math
from functools import lru_cache

import numpy as np
from panda3d.core import (
    Geom,
    GeomNode,
    GeomTriangles,
    GeomVertexData,
    GeomVertexFormat,
    SamplerState,
    Texture,
)

from data.worlds.palette import COLOURS

TEXTURE_SIDE = 64


def surface(positions: np.ndarray, normals: np.ndarray, uv: np.ndarray, faces: np.ndarray) -> Geom:
    """Build a triangle mesh from (V, 3), (V, 3), (V, 2) floats and (T, 3) vertex numbers."""
    data = GeomVertexData("mesh", GeomVertexFormat.get_v3n3t2(), Geom.UH_static)
    data.unclean_set_num_rows(len(positions))
    rows = np.concatenate([positions, normals, uv], 1).astype(np.float32)
    memoryview(data.modify_array(0)).cast("B")[:] = rows.tobytes()
    triangles = GeomTriangles(Geom.UH_static)
    for a, b, c in faces.tolist():
        triangles.add_vertices(a, b, c)
    mesh = Geom(data)
    mesh.add_primitive(triangles)
    return mesh


def revolve(profile: np.ndarray, num_sides: int = 20) -> Geom:
    """Turn a (P, 4) profile of (radius, z, normal_r, normal_z) around the z axis."""
    angle = np.linspace(0, 2 * math.pi, num_sides + 1)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    r, z, nr, nz = profile.T
    one = np.ones_like(cos)
    positions = np.stack([cos * r, sin * r, one * z], -1).reshape(-1, 3)
    normals = np.stack([cos * nr, sin * nr, one * nz], -1).reshape(-1, 3)
    u = np.repeat(angle / math.pi, len(r))
    v = np.tile(np.linspace(0, 1, len(r)), num_sides + 1)
    ring, point = np.meshgrid(np.arange(num_sides), np.arange(len(r) - 1), indexing="ij")
    a = (ring * len(r) + point).reshape(-1)
    b = a + len(r)
    faces = np.concatenate([np.stack([a, b, b + 1], 1), np.stack([a, b + 1, a + 1], 1)])
    return surface(positions, normals, np.stack([u, v], 1), faces)


@lru_cache(maxsize=1)
def sphere() -> Geom:
    """A unit-radius ball around (0, 0, 1)."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 13)
    cos, sin = np.cos(angle), np.sin(angle)
    return revolve(np.stack([cos, sin + 1, cos, sin], 1))


@lru_cache(maxsize=1)
def cylinder() -> Geom:
    """A cylinder of radius 0.8 and height 2 standing on z = 0, with a lid."""
    return revolve(
        np.array([[0.8, 0, 1, 0], [0.8, 2, 1, 0], [0.8, 2, 0, 1], [0.0, 2, 0, 1]], np.float64)
    )


@lru_cache(maxsize=1)
def cone() -> Geom:
    """A cone of radius 1 and height 2.2 standing on z = 0."""
    return revolve(np.array([[1.0, 0, 0.91, 0.41], [0.0, 2.2, 0.91, 0.41]], np.float64))


@lru_cache(maxsize=1)
def box() -> Geom:
    """A cube of side 1.7 standing on z = 0."""
    half = 0.85
    corners: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    uv: list[list[float]] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for sign in (-1, 1):
            normal = np.zeros(3)
            normal[axis] = sign
            across = np.roll(np.array([0.0, 1.0, 0.0]), axis)
            up = np.cross(normal, across)
            first = len(corners)
            for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corners.append(half * (normal + s * across + t * up) + [0, 0, half])
                normals.append(normal)
                uv.append([(s + 1) / 2, (t + 1) / 2])
            faces += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
    return surface(np.array(corners), np.array(normals), np.array(uv), np.array(faces))


def grid(width: float, depth: float, repeat: float, num_cells: int = 6) -> Geom:
    """A flat sheet in the x-y plane facing up, cut into cells so that lights vary over it."""
    ticks = np.linspace(-0.5, 0.5, num_cells + 1)
    x, y = (a.reshape(-1) for a in np.meshgrid(ticks, ticks, indexing="ij"))
    positions = np.stack([x * width, y * depth, 0 * x], 1)
    normals = np.tile(np.array([0.0, 0.0, 1.0]), (len(x), 1))
    uv = np.stack([x * width, y * depth], 1) * repeat
    row, column = np.meshgrid(np.arange(num_cells), np.arange(num_cells), indexing="ij")
    a = (row * (num_cells + 1) + column).reshape(-1)
    b = a + num_cells + 1
    faces = np.concatenate([np.stack([a, b, b + 1], 1), np.stack([a, b + 1, a + 1], 1)])
    return surface(positions, normals, uv, faces)


def node(mesh: Geom) -> GeomNode:
    """Wrap a mesh so that it can be attached to a scene."""
    wrapped = GeomNode("mesh")
    wrapped.add_geom(mesh)
    return wrapped


def pattern_texture(
    pattern: str, first: str, second: str, rng: np.random.Generator, dim: float = 1.0
) -> Texture:
    """Draw one of ``PATTERNS`` in two named colours, the second dimmed, as a repeating texture."""
    side = TEXTURE_SIDE
    y, x = np.mgrid[0:side, 0:side] * 8 // side  # cells 0..7
    if pattern == "checkered":
        mask = (x // 4 + y // 4) % 2
    elif pattern == "striped":
        mask = (x // 2) % 2
    elif pattern == "brick":
        v, u = np.mgrid[0:side, 0:side]
        row = v // 16
        mask = ((v % 16 < 2) | ((u + (row % 2) * 16) % 32 < 2)).astype(int)
    elif pattern == "tiled":
        v, u = np.mgrid[0:side, 0:side]
        mask = ((v % 32 < 3) | (u % 32 < 3)).astype(int)
    elif pattern == "speckled":
        mask = (rng.random((side // 4, side // 4)) < 0.3).astype(int).repeat(4, 0).repeat(4, 1)
    else:
        mask = np.zeros((side, side), int)
    palette = np.array([COLOURS[first], dim * np.array(COLOURS[second])])
    grain = 1 - 0.12 * rng.random((side, side, 1))
    pixels = (palette[mask] * grain * 255).astype(np.uint8)[:, :, ::-1]  # panda3d stores BGR
    texture = Texture(pattern)
    texture.setup_2d_texture(side, side, Texture.T_unsigned_byte, Texture.F_rgb)
    texture.set_ram_image(pixels.tobytes())
    texture.set_minfilter(SamplerState.FT_linear_mipmap_nearest)
    texture.set_magfilter(SamplerState.FT_linear)
    return texture
