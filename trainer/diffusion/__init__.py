"""A run of the diffusion transformer: its attempt, loop, validation, averages, result."""
