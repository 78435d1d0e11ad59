"""Frames in, outputs out: batches through the graph, read ahead, within memory. No disk and no codec."""
