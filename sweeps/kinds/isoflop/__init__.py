"""A law from an isoFLOP grid: pilot, grid, extension, repeats, twins."""
