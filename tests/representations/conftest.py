"""Frames for the tests of representations, made in memory."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.frames import FrameBatch
from vrekit.testing import representations as testing

BatchMaker = Callable[..., FrameBatch]


@pytest.fixture(scope="session")
def make_batch() -> BatchMaker:
    """Return a function from (N, H, W, 3) frames to a batch of consecutive frames at 10 frames per second."""

    def make(frames: NDArray[np.uint8], first: int = 0) -> FrameBatch:
        indices = np.arange(first, first + len(frames), dtype=np.int64)
        return FrameBatch(frames=frames, indices=indices, pts_seconds=indices / 10)

    return make


@pytest.fixture(scope="session")
def moving_frames() -> NDArray[np.uint8]:
    """Return 5 frames (71, 97, 3) of a smooth random texture that moves 2 pixels right and 1 up per frame."""
    return testing.moving_frames()


@pytest.fixture(scope="session")
def moving_batch(moving_frames: NDArray[np.uint8], make_batch: BatchMaker) -> FrameBatch:
    """Return the moving frames as frames 10..14."""
    return make_batch(moving_frames, first=10)
