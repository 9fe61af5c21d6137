"""The arithmetic of layouts: shapes, stages, cuts and cost, without an engine."""
