"""A ladder of model sizes, and its table beside published shapes."""
