"""Keypoints with descriptors."""
