"""Figures that answer to the pointer: the runs of a study as data, and what draws them."""
