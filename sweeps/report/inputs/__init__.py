"""What the pages read of a study folder."""
