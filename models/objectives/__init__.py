"""The objectives: one file each, found by its name (models/objective.py)."""
