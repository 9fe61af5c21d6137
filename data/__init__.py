"""Where bytes come from: clips in, packs out."""
