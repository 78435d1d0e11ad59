"""Soft segmentations: colour images that group what belongs together."""
