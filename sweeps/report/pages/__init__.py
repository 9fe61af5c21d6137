"""One page for each kind of study."""
