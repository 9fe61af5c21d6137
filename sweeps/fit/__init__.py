"""Tables of runs in, laws with their uncertainty out."""
