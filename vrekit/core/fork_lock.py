"""Locks that survive fork and pickling: readers are handed to worker processes with whatever threads are running."""

import os
import threading
import weakref
from types import TracebackType
from typing import Any


class ForkSafeLock:
    """A mutex that a forked child finds open, and that pickles as a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return (ForkSafeLock, ())

    def reopen(self) -> None:
        """Forget the holder: in a forked child the thread that held the lock does not exist."""
        self._lock = threading.Lock()


# Every lock there is, so that one fork handler serves them all; the child has a single thread when it runs.
_ALL: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()


def _reopen_all() -> None:
    for lock in list(_ALL):
        lock.reopen()


os.register_at_fork(after_in_child=_reopen_all)
