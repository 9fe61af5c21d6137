"""Laws through the best of each budget: splines, parabolas, frontiers."""
