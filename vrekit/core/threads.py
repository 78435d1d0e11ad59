"""Work in threads whose results are needed in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def thread_pool(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Give threads for a while; at the end, also after an error or Ctrl-C, what they have not begun is dropped.

    Args:
        threads: How many.
        name: What the threads' names begin with.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    at_most: int | Callable[[Item], int],
) -> Generator[Result]:
    """Yield `work(item)` of each item, in order, while threads are at work on those behind it.

    An error is raised in the place of its result; it, and closing the generator, cancel what no thread has begun.
    Neither items nor results are held here once they are handed on, as they may be large.

    Args:
        pool: The threads.
        work: What they do.
        items: Taken in the calling thread, one when there is room for it.
        at_most: Items in flight; or returns that, given the last one taken.
    """
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            room = at_most(item) if callable(at_most) else at_most
            pending.append(pool.submit(work, item))
            del item
            while len(pending) >= max(1, room):  # before the next item is taken
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
