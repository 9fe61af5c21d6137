"""Furnished rooms with a moving camera."""
