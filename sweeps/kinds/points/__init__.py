"""Studies of points: a product of settings, one table of runs, one named analysis."""
