"""Whether a run finds broken laws less likely, by crossed pairs of tiny worlds."""
