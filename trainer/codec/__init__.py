"""Compression networks built, loaded and measured for runs."""
