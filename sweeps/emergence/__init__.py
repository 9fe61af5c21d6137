"""Is the jump real: five tests of an ability against compute, and a forecast of its onset."""
