"""Sharded dataset writers behind one protocol: WebDataset tars, Lance tables."""
