"""CPU and memory limits of a run, and how many frames go through the graph together."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from vrekit.core.spec import OutputSpec
from vrekit.graph.build import Graph

logger = logging.getLogger(__name__)

BATCH_SECONDS = 1.0  # an interruption costs the batches that are being computed, so they are kept about this short
_MAX_BATCH_FRAMES = 16  # more make nothing faster on a CPU
_RAGGED_BYTES = 1 << 16  # the estimate for an output of variable size


class BatchSize:
    """How many frames go through the graph together: those that fit the memory and take about BATCH_SECONDS.

    A representation's own `batch_size` counts more than the time and less than the memory. Threads may share an object.

    Attributes:
        in_flight: How many batches may be in flight: being decoded, computed, or waiting for that or to be appended.
    """

    def __init__(
        self,
        graph: Graph,
        names: Sequence[str],
        frame_bytes: int,
        *,
        shared: int | None,
        threads: int,
        memory_bytes: int,
    ) -> None:
        """Start with the smallest batches; the first ones say how long a frame takes.

        Args:
            graph: What is computed.
            names: Representations that are computed or read back.
            frame_bytes: Size of a decoded frame.
            shared: Frames per `compute` call of representations without a `batch_size` of their own.
            threads: Batches that are computed at once.
            memory_bytes: Bound on the frames and outputs in flight. A single frame may take more.
        """
        per_frame = frame_bytes + sum(spec_bytes(graph.nodes[name].memory) for name in names)
        own = max((graph.nodes[name].spec.batch_size or 1 for name in names), default=1)
        asked = max(own, shared or 1)
        self._least = max(1, min(own, memory_bytes // per_frame))
        # a batch per thread, one that waits to be appended, one that is decoded, and one that is being decoded
        self.in_flight = max(1, min(threads + 3, memory_bytes // (per_frame * self._least)))
        most = min(max(_MAX_BATCH_FRAMES, asked), memory_bytes // (per_frame * self.in_flight))
        self._most = max(self._least, most // self._least * self._least)
        self._frames = self._least
        if asked > self._most:
            logger.log(
                logging.WARNING if own > self._most else logging.INFO,
                "batch_size %d runs as %d: a frame and its outputs take %.1f MB, and --memory is %.0f MB",
                asked,
                self._most,
                per_frame / 1e6,
                memory_bytes / 1e6,
            )
        if self._least == self.in_flight == 1:
            logger.info(
                "one frame at a time: it and its outputs take %.1f MB, and --memory is %.0f MB",
                per_frame / 1e6,
                memory_bytes / 1e6,
            )

    @property
    def frames(self) -> int:
        """Frames of the next batch."""
        return self._frames

    def measured(self, frames: int, seconds: float) -> None:
        """Take into account how long a batch took."""
        wanted = round(frames * BATCH_SECONDS / seconds) if seconds > 0 else self._most
        self._frames = max(self._least, min(self._most, wanted // self._least * self._least))


def spec_bytes(spec: OutputSpec) -> int:
    """Return the bytes of one frame in memory; 64 KiB for outputs of variable size."""
    if spec.is_ragged or spec.dtype == "str":
        return _RAGGED_BYTES
    return math.prod(side or 0 for side in spec.shape) * np.dtype(spec.dtype).itemsize
