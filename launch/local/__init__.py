"""Runs on this machine: processes, their progress, their ends."""
