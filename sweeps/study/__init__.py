"""What all studies share: specs, phases, recipe, results, samples."""
