"""PyTorch readers: random access, reading order, state, loader."""
