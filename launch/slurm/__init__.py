"""Runs on a SLURM cluster: planned, rendered, submitted once, supervised, watched."""
