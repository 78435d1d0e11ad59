"""Memory for intermediate results, kept by each thread from one frame to the next.

Fresh megabytes cost more (page faults) than the arithmetic done in them: a third of the time of decoding normals.
"""

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_KEPT_BYTES = 1 << 26  # larger ones are rare and go back to the system
_THREAD = threading.local()


def scratch(slot: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an uninitialised C-contiguous array.

    It is valid until the same thread asks for the same `slot` again, so it must never be handed out to callers of a
    codec.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > _MAX_KEPT_BYTES:
        return np.empty(shape, dtype)
    buffers: dict[str, NDArray[np.uint8]] = _THREAD.__dict__.setdefault("buffers", {})
    buffer = buffers.get(slot)
    if buffer is None or buffer.nbytes < size:
        buffer = buffers[slot] = np.empty(max(size, 1), np.uint8)
    return buffer[:size].view(dtype).reshape(shape)
