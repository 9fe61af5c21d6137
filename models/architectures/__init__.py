"""The architectures: one file each, found by its name (models/architecture.py)."""
