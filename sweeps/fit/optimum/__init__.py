"""Where a form fits best: objective, starts, solver, profiles."""
