"""Live progress of a study while it runs, from its plan and the tails of its metrics alone."""
