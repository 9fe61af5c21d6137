"""Ratios that decisions rest on, each taken side by side in one run."""
