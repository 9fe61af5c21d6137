"""The table of runs: read, checked, its columns named."""
