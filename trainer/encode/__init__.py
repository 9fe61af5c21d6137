"""Clips in, latent shards out."""
