"""Pixels in, latents out, and back: the compression networks and their losses."""
