"""What the 3-D scenes share: light, shadows, a drawing order that never changes, and an end."""

import numpy as np
from panda3d.core import AmbientLight, DirectionalLight, GeomNode, NodePath, TransparencyAttrib

from data.worlds.render.setting import LIGHT_NAMES
from data.worlds.render.stage import IDS


def shade(shadow: NodePath) -> None:
    """Make a flat mesh a shadow: see-through black in the picture, nothing in the id pass."""
    shadow.set_light_off()
    shadow.set_color(0, 0, 0, 0.35)
    shadow.set_transparency(TransparencyAttrib.M_alpha)
    shadow.hide(IDS)


def light(root: NodePath, name: str, hpr: tuple[float, float], brightness: float) -> None:
    """Light a scene with a sun and the sky's reflection."""
    tint = np.array(LIGHT_NAMES[name]) * brightness
    sun = DirectionalLight("sun")
    sun.set_color((*(0.75 * tint).tolist(), 1))
    held = root.attach_new_node(sun)
    held.set_hpr(hpr[0], hpr[1], 0)
    ambient = AmbientLight("ambient")
    ambient.set_color((*(0.42 * tint).tolist(), 1))
    root.set_light(held)
    root.set_light(root.attach_new_node(ambient))


def fix_order(root: NodePath) -> None:
    """Draw meshes in the order of the scene, see-through ones last.

    Left alone, the renderer orders meshes by their addresses; where two meet, the first wins the
    pixel, and pixels would differ from run to run.
    """
    meshes = [node for node in in_order(root) if isinstance(node.node(), GeomNode)]
    for number, mesh in enumerate(sorted(meshes, key=NodePath.has_transparency)):
        mesh.set_bin("fixed", number)


def in_order(node: NodePath) -> list[NodePath]:
    """List a node and all below it, parents first, children in the order of their attachment."""
    below = [found for child in node.get_children() for found in in_order(child)]
    return [node, *below]


def close(root: NodePath) -> None:
    """Free a scene; its lights hold the root that they light, so they must go first."""
    root.clear_light()
    root.remove_node()
