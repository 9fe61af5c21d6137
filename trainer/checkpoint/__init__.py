"""Checkpoints that exist or do not: written, read, verified."""
