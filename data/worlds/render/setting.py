"""What stands around a scene: skies, lights and camera paths."""

import math
from dataclasses import dataclass

import numpy as np

CAMERAS = ("orbit", "pan", "push in", "pull back", "truck", "crane", "static")


# What comes after "the camera".
CAMERA_WORDS = {
    "orbit": "orbits to the {side}",
    "pan": "pans to the {side}",
    "push in": "pushes in",
    "pull back": "pulls back",
    "truck": "moves sideways to the {side}",
    "crane": "rises",
    "static": "does not move",
}


SKIES = {
    "blue": (0.45, 0.68, 0.95),
    "pale": (0.82, 0.86, 0.90),
    "dark": (0.06, 0.07, 0.14),
    "pink": (0.95, 0.70, 0.66),
}


LIGHT_NAMES = {"warm": (1.0, 0.88, 0.70), "cool": (0.75, 0.87, 1.0), "white": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class CameraPath:
    """A smooth path; ``progress`` runs from 0 to 1 over a clip."""

    kind: str
    sign: int  # +1 moves to the right as seen from the camera
    start: float  # radians around the room
    sweep: float  # radians or metres, by kind
    distance: float
    height: float

    def place(self, progress: float) -> tuple[tuple[float, float, float], tuple[float, ...]]:
        """Return the camera's position and the point it looks at."""
        angle, distance, height = self.start, self.distance, self.height
        shift = self.sign * self.sweep * (progress - 0.5)
        if self.kind == "orbit":
            angle += shift
        elif self.kind == "push in":
            distance -= 1.8 * progress
        elif self.kind == "pull back":
            distance -= 1.8 * (1 - progress)
        elif self.kind == "crane":
            height += 1.6 * progress - 0.5
        eye = np.array([distance * math.cos(angle), distance * math.sin(angle), height])
        target = np.array([0.0, 0.0, 0.7])
        right = np.array([-math.sin(angle), math.cos(angle), 0.0])
        if self.kind == "pan":
            target = target + right * (1.2 * shift * distance)
        elif self.kind == "truck":
            eye, target = eye + right * (2.5 * shift), target + right * (2.5 * shift)
        return tuple(eye.tolist()), tuple(target.tolist())

    def words(self) -> str:
        """Say what the camera does, after "the camera"."""
        return CAMERA_WORDS[self.kind].format(side="right" if self.sign > 0 else "left")
