"""Memory of large batches: large pages, and the same ones again once nothing looks at them any more."""

import mmap
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_KEPT_BYTES = 512 << 20  # unused pages of one reader in one process
_MAX_TIMES = 4  # pages go to a batch (the last, smaller one) of at least this part of their size


class PagePool:
    """Lends memory to batches, and takes it back when the last array or tensor that shares it is gone.

    glibc gives large memory back to the system when it is freed, so every batch would touch new pages, which the
    kernel clears first. Threads may borrow at once.

    Args:
        max_kept_bytes: Memory that is kept while nobody uses it.
    """

    def __init__(self, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_kept_bytes = max_kept_bytes
        # no lock: pages come back in whatever thread, and at whatever moment, drops the last reference
        self._unused: deque[_Pages] = deque()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_unused": deque()}

    @property
    def kept_bytes(self) -> int:
        """Memory that nobody uses."""
        return sum(pages.size_bytes for pages in list(self._unused))

    def array(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return memory of this size (at least 1), uint8; its values are undefined."""
        return np.asarray(_Loan(self, self._take(size_bytes)))[:size_bytes]

    def _take(self, size_bytes: int) -> "_Pages":
        for pages in list(self._unused):
            if size_bytes <= pages.size_bytes <= _MAX_TIMES * size_bytes:
                with suppress(ValueError):  # another thread was faster
                    self._unused.remove(pages)
                    return pages
        return _Pages(size_bytes)

    def take_back(self, pages: "_Pages") -> None:
        """Keep pages for the next batch; the ones that are unused for longest make room."""
        if pages.size_bytes > self._max_kept_bytes:
            return  # all others would make room in vain
        self._unused.append(pages)
        with suppress(IndexError):
            while self.kept_bytes > self._max_kept_bytes:
                self._unused.popleft()


class _Pages:
    """A mapping with pages of 2 MiB instead of 4 KiB where the kernel has them."""

    def __init__(self, size_bytes: int) -> None:
        mapping = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
        self.bytes = np.frombuffer(mapping, np.uint8)
        self.size_bytes = size_bytes


class _Loan:
    """What numpy takes for the owner of lent memory: every view of it keeps this object, and nothing else does."""

    def __init__(self, pool: PagePool, pages: _Pages) -> None:
        self._pool = pool
        self._pages = pages
        self.__array_interface__ = pages.bytes.__array_interface__

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # else the names of this module are gone, and the pages go anyway
            self._pool.take_back(self._pages)
