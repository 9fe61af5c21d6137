"""What a run folder tells of launches, states and lost time."""
