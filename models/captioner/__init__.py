"""Clips in, captions out: a video encoder and a caption decoder."""
