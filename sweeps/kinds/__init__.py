"""The kinds of study: laws, arms, points, emergence."""
