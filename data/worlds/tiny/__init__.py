"""Worlds of a few pixels whose state, law and lawless twin are known exactly."""
