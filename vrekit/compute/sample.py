"""A few frames of some representations, computed in memory."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.compute.feeder import Feeder
from vrekit.compute.processor import BatchProcessor
from vrekit.graph.build import Graph
from vrekit.video.base import VideoSource


def sample_arrays(
    graph: Graph, source: VideoSource, names: Sequence[str], frames: Iterable[int]
) -> dict[str, dict[int, NDArray[Any]]]:
    """Return what would go into the codecs of some representations, by frame; frames that fail are left out.

    Args:
        graph: Where the representations are.
        source: The video; frames are read one at a time.
        names: Representations.
        frames: Frame numbers.
    """
    order = graph.closure(names)
    processor = BatchProcessor(graph)
    found: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in names}
    try:
        for frame in frames:
            feeder = Feeder(source, context=graph.context(order))
            fed = feeder.read(np.array([frame], np.int64), decode=graph.uses_frames(order))
            computed = processor.compute(fed.batch, order, {}, fed.failures)
            for name in names:
                if frame in computed[name]:
                    found[name][frame] = processor.stored_form(name, computed[name], frame)
    finally:
        processor.close()
    return found
