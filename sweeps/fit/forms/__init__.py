"""The forms a law may have."""
