"""Studies of arms: a few ways to train, several seeds of each, equal compute, one comparison."""
