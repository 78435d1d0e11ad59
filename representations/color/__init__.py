"""Colour representations: the pixels themselves and other colour spaces."""
