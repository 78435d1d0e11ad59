"""Samples in the memory of this process: for tests, and as the smallest example of a storage."""
