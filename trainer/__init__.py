"""When, and laid out how: every job that runs models over data."""
