"""A tile world played by an agent."""
