"""Batches read ahead by a pool of threads, handed out in order, bounded in batches and in bytes."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.readers.dataset import Collate, FrameDataset

_MIN_PART_BYTES = 256 << 10  # a smaller part costs more to hand to a thread than to read


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchOptions:
    """How far and with how many threads to read ahead.

    Attributes:
        threads: Threads that read and decode.
        batches: Batches read ahead of the one the consumer waits for.
        size_bytes: Memory of all batches under way, payloads and tensors; a single batch may exceed it.
        collate: Puts samples together; None stacks them.
    """

    threads: int
    batches: int
    size_bytes: int
    collate: Collate | None = None


class Prefetcher(Iterator[Any]):
    """Reads batches of a dataset ahead of their consumer.

    All threads work on one batch before the next: the first batch comes as early as it can, and few are in memory.
    The threads end when the batches do, when one fails, on `close`, and when the object is garbage.

    Args:
        dataset: What to read.
        batches: (name for messages, row numbers) of each batch, in the order they are handed out.
        options: How far to read ahead.
    """

    def __init__(
        self, dataset: FrameDataset, batches: Iterator[tuple[str, NDArray[np.int64]]], options: PrefetchOptions
    ) -> None:
        self._dataset = dataset
        self._batches = batches
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="vrekit-read")
        # when the object is garbage and at the interpreter's exit, too
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._under_way: deque[_BatchJob] = deque()
        self._bytes_under_way = 0
        self._next: _BatchJob | None = None
        self._read_ahead()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self._under_way:
            self.close()
            raise StopIteration
        job = self._under_way.popleft()
        try:
            batch = job.result.result()
            self._bytes_under_way -= job.size_bytes
            self._read_ahead()
        except BaseException:
            self.close()
            raise
        return batch

    def _read_ahead(self) -> None:
        """Start the batches that fit into the bounds."""
        while len(self._under_way) <= self._options.batches:
            if self._next is None:
                name, rows = next(self._batches, ("", None))
                if rows is None:
                    return
                self._next = _BatchJob(self._dataset, name, rows, self._options.collate)
            job = self._next
            if self._under_way and self._bytes_under_way + job.size_bytes > self._options.size_bytes:
                return
            self._next = None
            self._bytes_under_way += job.size_bytes
            self._under_way.append(job)
            job.start(self._pool, self._options.threads)

    def close(self) -> None:
        """Stop the threads; they finish what they are decoding, and nothing new is begun."""
        self._under_way.clear()
        self._batches = iter(())
        self._next = None
        self._stop()


class _BatchJob:
    """One batch on its way: its parts run in any thread, and the last one to end puts the batch together."""

    def __init__(self, dataset: FrameDataset, name: str, rows: NDArray[np.int64], collate: Collate | None) -> None:
        self.result: Future[Any] = Future()
        self.size_bytes = dataset.size_bytes(rows)
        self._dataset = dataset
        self._name = name
        self._rows = rows
        self._collate = collate
        self._lock = threading.Lock()
        self._parts_left = 0
        self._error: BaseException | None = None

    def start(self, pool: ThreadPoolExecutor, threads: int) -> None:
        """Hand the batch to the pool in up to `threads` parts."""
        count = max(1, min(threads, len(self._rows), self.size_bytes // _MIN_PART_BYTES))
        batch = self._dataset.open_batch(self._rows)
        # neighbours on disk stay together, so that one read serves them
        parts = np.array_split(self._dataset.storage_order(self._rows), count)
        self._parts_left = len(parts)
        for part in parts:
            pool.submit(self._run, batch, part)

    def _run(self, batch: Any, positions: NDArray[np.int64]) -> None:
        try:
            if self._error is None:
                self._dataset.fill_batch(batch, positions)
        except BaseException as error:
            self._error = error
        with self._lock:
            self._parts_left -= 1
            if self._parts_left:
                return
        result = None
        if self._error is None:
            try:
                result = self._dataset.finish_batch(batch, self._collate)
            except BaseException as error:
                self._error = error
        if self._error is None:
            self.result.set_result(result)
        else:
            self._error.add_note(f"while reading {self._name}: {self._frames()}")
            self.result.set_exception(self._error)

    def _frames(self) -> str:
        keys = [self._dataset.index.key(row) for row in self._rows[:3].tolist()]
        return ", ".join(keys) + (f" and {len(self._rows) - 3} more frames" if len(self._rows) > 3 else "")
