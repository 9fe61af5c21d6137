"""A first-person game with its true poses and objects."""
