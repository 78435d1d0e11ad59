"""Many tar shards of the result, a few at a time: while one waits for the disk, others are copied."""

import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from vrekit.catalog.storage import Advance
from vrekit.writers.webdataset.new_shard import NewShard

_TELL_SECONDS = 0.1
_THREADS = 3


@dataclass(slots=True)
class CommittedShards:
    """Numbers of shards: written now, those of them that equal a source's tar, and finished before."""

    written: int = 0
    kept_whole: int = 0
    already: int = 0


def commit_shards(
    shards: Iterable[NewShard], advance: Advance, *, link: bool = False, sync: bool = True
) -> CommittedShards:
    """Make shards part of the result, unless an interrupted merge has done so.

    Args:
        shards: In order; made while others are copied.
        advance: Called from this thread with the bytes copied since the last call.
        link: See `NewShard.commit`.
        sync: See `NewShard.commit`.
    """
    stop = threading.Event()
    copied = _Counter(stop)
    total = CommittedShards()
    pending: set[Future[CommittedShards]] = set()

    def commit(shard: NewShard) -> CommittedShards:
        if shard.is_committed():
            copied.add(shard.members.total_bytes)
            return CommittedShards(already=1)
        return CommittedShards(written=1, kept_whole=int(shard.commit(copied.add, link=link, sync=sync)))

    def drain(limit: int) -> None:
        nonlocal pending
        while len(pending) > limit:
            done, pending = wait(pending, timeout=_TELL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                committed = future.result()
                total.written += committed.written
                total.kept_whole += committed.kept_whole
                total.already += committed.already
            advance(copied.take())

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="vrekit-merge") as pool:
        try:
            for shard in shards:
                drain(2 * _THREADS)
                pending.add(pool.submit(commit, shard))
            drain(0)
        except BaseException:
            stop.set()  # what is being copied is given up, not finished first
            pool.shutdown(cancel_futures=True)
            raise
    return total


class _Counter:
    """Bytes that the copying threads report; they stop when the main thread does."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        if self._stop.is_set():
            raise InterruptedError("the merge was stopped")
        with self._lock:
            self._count += count

    def take(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
        return count
