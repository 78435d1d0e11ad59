"""Work in threads whose results are needed in order: bounded, and nothing goes on after an error."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from vrekit.core.splitmix import mix
from vrekit.core.threads import in_order, thread_pool


def test_results_come_in_order_and_items_are_taken_when_there_is_room() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    with thread_pool(4, "test") as pool:
        results = in_order(pool, lambda number: number * 10, items(), at_most=3)
        assert next(results) == 0
        assert taken == [0, 1, 2]
        assert next(results) == 10
        assert taken == [0, 1, 2, 3]
        assert list(results) == [10 * number for number in range(2, 20)]


def test_the_bound_may_follow_from_the_item() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in (1, 1, 9, 1, 1):
            taken.append(number)
            yield number

    with thread_pool(2, "test") as pool:
        results = in_order(pool, lambda number: number, items(), at_most=lambda size: 0 if size > 5 else 3)
        next(results)
        assert taken == [1, 1, 9]
        assert [next(results), next(results)] == [1, 9]
        assert taken == [1, 1, 9]  # the large one is done before another is taken
        assert list(results) == [1, 1]


def test_an_error_cancels_what_has_not_begun() -> None:
    done: list[int] = []
    go_on = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            raise ValueError("no")
        go_on.wait(10)
        done.append(number)
        return number

    submitted: list[Future[int]] = []

    class Noted(ThreadPoolExecutor):
        def submit(self, *arguments: Any) -> Future[Any]:  # type: ignore[override]  # of fewer
            submitted.append(super().submit(*arguments))
            return submitted[-1]

    with Noted(1) as pool:
        with pytest.raises(ValueError, match="no"):
            list(in_order(pool, work, range(100), at_most=6))
        go_on.set()
    assert len(submitted) == 6
    assert len(done) <= 1
    assert all(future.cancelled() for future in submitted[2:])


def test_closing_ends_it() -> None:
    with thread_pool(2, "test") as pool:
        results = in_order(pool, str, range(100), at_most=4)
        assert next(results) == "0"
        results.close()
        assert list(results) == []


def test_mixing_is_that_of_splitmix64() -> None:
    # the first output of the generator with seed 0 is the mixed golden ratio
    assert mix(np.array([0x9E3779B97F4A7C15], np.uint64))[0] == 0xE220A8397B1DCDAF
