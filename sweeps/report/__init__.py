"""A finished study in, one static page out."""
