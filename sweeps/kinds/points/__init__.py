"""Studies of points: settings meet settings, one table of runs, one named analysis."""
