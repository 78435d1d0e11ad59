"""A value that is made once, on first use, whatever the number of threads."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """Calls `make` on first use and keeps what it returned; a copy sent to another process makes its own."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._value: list[T] = []

    def __call__(self) -> T:
        """Return the value; an error of `make` is raised again on every call."""
        with self._lock:
            if not self._value:
                self._value.append(self._make())
            return self._value[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return Lazy, (self._make,)
