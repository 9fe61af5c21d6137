"""Names of colours and patterns, and how they look."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.85, 0.15),
    "green": (0.15, 0.65, 0.20),
    "teal": (0.08, 0.60, 0.62),
    "blue": (0.12, 0.28, 0.85),
    "purple": (0.50, 0.18, 0.70),
    "pink": (0.95, 0.50, 0.70),
    "brown": (0.45, 0.27, 0.12),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.50, 0.50, 0.52),
    "black": (0.08, 0.08, 0.09),
}


PATTERNS = ("checkered", "striped", "brick", "speckled", "plain", "tiled")
