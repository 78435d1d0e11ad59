"""Decoding ahead: frames in the order they are computed, each decoded once, neighbours included."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vrekit.core.frames import FrameBatch
from vrekit.video.base import VideoSource

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FedBatch:
    """Frames that decoded, why others did not, and when each of both is shown (seconds, NaN without a clock)."""

    batch: FrameBatch
    pts_seconds: Mapping[int, float]
    failures: Mapping[int, str] = field(default_factory=dict)


class Feeder:
    """Reads batches from a source, keeping the frames that the next batch needs as neighbours.

    Args:
        source: Where frames come from; only the feeder's thread touches it.
        context: Frames needed (before, after) each frame.
    """

    def __init__(self, source: VideoSource, *, context: tuple[int, int]) -> None:
        self.source = source
        self.context = context
        self._known = {int(index) for index in source.frame_indices} if any(context) else set()
        self._cache: dict[int, NDArray[np.uint8]] = {}
        self._failures: dict[int, str] = {}

    def read(self, indices: NDArray[np.int64], *, decode: bool) -> FedBatch:
        """Return the frames with these numbers (rising); empty ones unless they are to be decoded."""
        pts = self.source.pts_seconds(indices)
        shown = dict(zip(indices.tolist(), pts.tolist(), strict=True))
        if not decode:
            nothing = np.empty((len(indices), 0, 0, 3), np.uint8)
            return FedBatch(FrameBatch(frames=nothing, indices=indices, pts_seconds=pts), shown)
        if not any(self.context):
            decoded = self.source.read(indices)
            kept = np.isin(indices, decoded.indices, assume_unique=True)
            batch = FrameBatch(frames=decoded.frames, indices=decoded.indices, pts_seconds=pts[kept])
            return FedBatch(batch, shown, decoded.failures)
        batch, failures = self._read_with_neighbours(indices, pts)
        return FedBatch(batch, shown, failures)

    def _read_with_neighbours(
        self, indices: NDArray[np.int64], pts: NDArray[np.float64]
    ) -> tuple[FrameBatch, dict[int, str]]:
        before, after = self.context
        around = {int(index) + offset for index in indices for offset in range(-before, after + 1)}
        wanted = around & self._known
        lowest = min(wanted)
        self._cache = {index: frame for index, frame in self._cache.items() if index >= lowest}
        missing = sorted(wanted - self._cache.keys() - self._failures.keys())
        if missing:
            decoded = self.source.read(missing)
            self._cache.update(zip(decoded.indices.tolist(), decoded.frames, strict=True))
            self._failures.update(decoded.failures)
        good = [index for index in indices.tolist() if index in self._cache]
        kept = np.isin(indices, good, assume_unique=True)
        info = self.source.info
        frames = (
            np.stack([self._cache[index] for index in good])
            if good
            else np.empty((0, info.height, info.width, 3), np.uint8)
        )
        neighbours = {index: self._cache[index] for index in wanted if index in self._cache}
        batch = FrameBatch(frames=frames, indices=indices[kept], pts_seconds=pts[kept], neighbours=neighbours)
        asked = indices.tolist()
        return batch, {index: self._failures[index] for index in asked if index in self._failures}


def ahead(make: Callable[[], Iterator[T]], depth: int) -> Generator[T]:
    """Run an iterator in its own thread, `depth` items ahead; its exceptions are raised here.

    Closing the returned generator stops the thread.
    """
    items: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[str, T | BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in make():
                if not put(("item", item)):
                    return
                del item
            put(("end", None))
        except BaseException as error:
            put(("error", error))

    thread = threading.Thread(target=run, name="vrekit-decode", daemon=True)
    thread.start()
    try:
        while True:
            what, value = items.get()
            if what == "end":
                return
            if what == "error":
                raise value  # type: ignore[misc]  # tagged: an "error" item holds the exception
            yield value  # type: ignore[misc]  # tagged: an "item" item holds a T
            del value  # the caller may have done with it, and the next one may take its memory
    finally:
        stop.set()
        thread.join()
