"""Rendered worlds: a seed in, a clip with its caption out."""
