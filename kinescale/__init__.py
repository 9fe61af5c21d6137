"""The command ``kinescale``: a door to the commands of all rooms."""

__version__ = "0.1.0"
