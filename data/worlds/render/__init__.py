"""The renderer of the drawn worlds: scenes, shapes, cameras, skies."""
