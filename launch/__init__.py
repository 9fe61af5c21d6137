"""On which machines, and what it will cost."""
