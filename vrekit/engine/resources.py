"""What a run may take of the machine: its CPUs, and how many frames of memory at once."""

import math
import os

import numpy as np

from vrekit.core.spec import OutputSpec
from vrekit.graph.build import Graph

MAX_BATCH_FRAMES = 16
_RAGGED_BYTES = 1 << 16  # what a ragged output is reckoned at


def batch_frames(graph: Graph, names: list[str], frame_bytes: int, *, threads: int, memory_bytes: int) -> int:
    """Return how many frames go through the graph together, so that all batches in flight fit `memory_bytes`.

    In flight at once are one batch a worker, one waiting, one decoded ahead and one being decoded.
    """
    per_frame = frame_bytes + sum(spec_bytes(graph.nodes[name].memory) for name in names)
    return max(1, min(MAX_BATCH_FRAMES, memory_bytes // (per_frame * (threads + 3))))


def spec_bytes(spec: OutputSpec) -> int:
    """Return the bytes of one frame in memory; ragged ones are reckoned at 64 KiB."""
    if spec.is_ragged or spec.dtype == "str":
        return _RAGGED_BYTES
    return math.prod(side or 0 for side in spec.shape) * np.dtype(spec.dtype).itemsize


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
