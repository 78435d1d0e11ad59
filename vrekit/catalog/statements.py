"""Running DuckDB statements so that a signal, a time limit or a memory limit can end them.

DuckDB looks for an interruption between two chunks of rows. A function that works on one huge value (`lpad`, a regular
expression, `levenshtein`, a list of 10⁹ numbers) does not ask, and Python runs signal handlers in the main thread only,
which would be inside DuckDB. So each statement runs in a thread of its own, and the caller waits. A statement that does
not obey is abandoned together with its connection: a thread cannot be killed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vrekit.core.errors import QueryLimitError, UsageError
from vrekit.core.memory import machine_memory, resident_memory

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

STATEMENT_THREAD = "vrekit-statement"
MIN_MEMORY_BYTES = 64 << 20
MAX_MEMORY_BYTES = 1 << 50
_SLICE_SECONDS = 0.05
_OBEY_SECONDS = 0.3
_AGAIN_SECONDS = 0.02


def query_memory(memory_bytes: int | None = None) -> int:
    """Return the bytes that a query may take; a quarter of the machine's memory unless it is given.

    Raises:
        UsageError: If it is less than DuckDB needs, or more than any machine has.
    """
    if memory_bytes is None:
        return max(machine_memory() // 4, MIN_MEMORY_BYTES)
    if not MIN_MEMORY_BYTES <= memory_bytes <= MAX_MEMORY_BYTES:
        raise UsageError(f"a query may use {memory_bytes} bytes of memory, but that must be 64 MiB to 1 PiB")
    return memory_bytes


class Statements:
    """Runs the statements of one connection, one after the other.

    Args:
        connection: The connection.
        memory_bytes: How much the process may grow during a statement. DuckDB's own limit counts its buffers only, not
            long texts, nor what it hands over. Not watched where the system does not tell it (other than Linux).

    Attributes:
        is_abandoned: A statement did not obey an interruption; the connection is of no use any more.
    """

    def __init__(self, connection: "duckdb.DuckDBPyConnection", memory_bytes: int) -> None:
        self.is_abandoned = False
        self._connection = connection
        self._memory_bytes = memory_bytes
        self._deadline: float | None = None
        self._seconds: float | None = None

    @contextmanager
    def time_limit(self, seconds: float | None) -> Iterator[None]:
        """End what is still running so many seconds from now.

        Raises:
            UsageError: If it is no number of seconds above 0.
            QueryLimitError: When the time is over.
        """
        if seconds is None:
            yield
            return
        if not 0 < seconds < float("inf"):
            raise UsageError(f"timeout is {seconds} seconds, but must be a number above 0")
        before = self._deadline, self._seconds
        self._deadline, self._seconds = time.monotonic() + seconds, seconds
        try:
            yield
        finally:
            self._deadline, self._seconds = before

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises; it may use the connection.

        Raises:
            QueryLimitError: When a limit is reached, or an earlier statement is still running.
        """
        if self.is_abandoned:
            raise QueryLimitError(
                "an earlier query could not be stopped and is still running", hint="open the dataset anew"
            )
        running = _Running(call)
        memory = resident_memory()
        try:
            running.thread.start()
            while not running.done.wait(self._slice()):
                self._check(memory)
        except BaseException:
            self._stop(running)
            raise
        return running.result()

    def _slice(self) -> float:
        if self._deadline is None:
            return _SLICE_SECONDS
        return max(0.0, min(_SLICE_SECONDS, self._deadline - time.monotonic()))

    def _check(self, memory_before: int) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise QueryLimitError(
                f"the query took longer than {self._seconds:g} seconds",
                hint="give it more time (--timeout), or a narrower condition",
            )
        if resident_memory() - memory_before > self._memory_bytes:
            raise self.out_of_memory()

    def out_of_memory(self) -> QueryLimitError:
        """Return what to raise when a statement needs more memory than it may use."""
        return QueryLimitError(
            f"the query needs more than the {self._memory_bytes / 1e9:.1f} GB of memory that it may use",
            hint="select fewer rows or columns, or give it more: --memory, open_dataset(…, memory_bytes=…)",
        )

    def _stop(self, running: "_Running[Any]") -> None:
        if running.interrupt(self._connection, _OBEY_SECONDS):
            return
        self.is_abandoned = True
        # it may obey later, between two of its huge values
        threading.Thread(target=running.interrupt, args=(self._connection,), name=STATEMENT_THREAD, daemon=True).start()


class _Running(Generic[T]):
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, name=STATEMENT_THREAD, daemon=True)
        self._call = call
        self._value: T
        self._error: BaseException | None = None
        self._is_stopped = False

    def _run(self) -> None:
        try:
            if not self._is_stopped:
                self._value = self._call()
        except BaseException as error:  # it is raised in the caller's thread
            self._error = error
        finally:
            del self._call
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value

    def interrupt(self, connection: "duckdb.DuckDBPyConnection", seconds: float | None = None) -> bool:
        """Interrupt until it ends; return whether it did within `seconds`.

        Again and again, as DuckDB forgets an interruption that comes between two steps of a statement.
        """
        self._is_stopped = True
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.thread.ident is not None and not self.done.is_set():
            if deadline is not None and time.monotonic() > deadline:
                return False
            connection.interrupt()
            self.done.wait(_AGAIN_SECONDS)
        return True
