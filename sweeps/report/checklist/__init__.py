"""What one must know of a law, answered from its files."""
