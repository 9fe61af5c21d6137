"""Shards in, planned steps of packs out, whatever the number of ranks."""
