"""Training of the video compression network: losses, measures, statistics of its latents."""
