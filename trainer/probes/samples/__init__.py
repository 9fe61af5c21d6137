"""Continuations of true clips, read back as states: what a drawn clip keeps of a law."""
