"""Prompts in, videos out."""
